"use strict";

// Tables: clicking a column header sorts; missing values stay last in both directions.
function sortValue(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  const numbers = typeof a === "number" && typeof b === "number";
  return direction * (numbers ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}

function sortBy(header) {
  const table = header.closest("table");
  const direction = header.ariaSort === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [sortValue(row, header.cellIndex), row]);
  rows.sort((a, b) => compare(a[0], b[0], direction));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of header.parentNode.cells) other.ariaSort = "none";
  header.ariaSort = direction > 0 ? "ascending" : "descending";
}

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

// Score curves: one x axis at a time.
for (const choice of document.querySelectorAll("input[name=axis]")) {
  const show = () => { if (choice.checked) document.querySelector(".axes").dataset.axis = choice.value; };
  choice.addEventListener("change", show);
  show();
}

// Legend: a click hides a method in all figures or shows it again, a double click shows it alone.
const toggles = [...document.querySelectorAll("[data-toggle]")];
const methods = [...new Set(toggles.map((toggle) => toggle.dataset.toggle))];
let hidden = new Set();

function hide(chosen) {
  hidden = new Set(methods.filter((method) => chosen.includes(method)));
  for (const toggle of toggles) toggle.ariaPressed = !hidden.has(toggle.dataset.toggle);
  for (const part of document.querySelectorAll("[data-method]")) {
    part.classList.toggle("off", hidden.has(part.dataset.method));
  }
  for (const button of document.querySelectorAll(".show-all")) button.hidden = !hidden.size;
}

// The legend that was clicked stays where it is, though figures above it may come and go.
function hideAndRemember(chosen, anchor) {
  const before = anchor.getBoundingClientRect().top;
  hide(chosen);
  writeAddress();
  scrollBy({ top: anchor.getBoundingClientRect().top - before, behavior: "instant" });
}

// The address ends in #section?hide=method&hide=method, so that a link shows the same.
function readAddress() {
  const [section, query] = location.hash.slice(1).split("?");
  if (query === undefined) return hidden.size && writeAddress(); // a link within the page was followed
  hide(new URLSearchParams(query).getAll("hide"));
  document.getElementById(section)?.scrollIntoView();
}

function writeAddress() {
  const [section] = location.hash.slice(1).split("?");
  const query = new URLSearchParams([...hidden].map((method) => ["hide", method]));
  history.replaceState(null, "", hidden.size ? `#${section}?${query}` : `#${section}`);
}

for (const toggle of toggles) {
  const method = toggle.dataset.toggle;
  const others = methods.filter((other) => other !== method);
  const isHidden = (other) => hidden.has(other);
  toggle.addEventListener("click", () => {
    hideAndRemember(isHidden(method) ? others.filter(isHidden) : [...hidden, method], toggle);
  });
  toggle.addEventListener("dblclick", () => hideAndRemember(others, toggle));
}
for (const button of document.querySelectorAll(".show-all")) {
  button.addEventListener("click", () => hideAndRemember([], button.closest("ul")));
}
addEventListener("hashchange", readAddress);
readAddress();

// Tables as text: copied by a way that needs no secure connection.
function copy(button, name) {
  const text = document.getElementById(button.dataset.copies);
  text.hidden = false;
  text.select();
  text.hidden = document.execCommand("copy"); // otherwise the reader copies what is selected
  if (!text.hidden) return;
  button.focus();
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = name; }, 1500);
}

for (const button of document.querySelectorAll("[data-copies]")) {
  const name = button.textContent;
  button.addEventListener("click", () => copy(button, name));
}

// Figures as files: as shown, but always in the light colors, which the first rule of the style sheet has.
const light = document.styleSheets[0].cssRules[0].style;

function standalone(svg) {
  const file = svg.cloneNode(true);
  const { width, height } = svg.viewBox.baseVal;
  file.setAttribute("width", width);
  file.setAttribute("height", height);
  file.setAttribute("style", "background: var(--card); stroke-linejoin: round; stroke-linecap: butt");
  for (const part of file.querySelectorAll(".off")) part.setAttribute("display", "none");
  const text = new XMLSerializer().serializeToString(file);
  return text.replace(/var\((--[\w-]+)\)/g, (_, name) => light.getPropertyValue(name).trim());
}

function save(figure) {
  const link = document.createElement("a");
  link.href = `data:image/svg+xml,${encodeURIComponent(standalone(figure.querySelector("svg")))}`;
  link.download = `${document.getElementById("main").dataset.folder}-${figure.dataset.file}.svg`;
  link.click();
}

for (const button of document.querySelectorAll(".save")) {
  button.addEventListener("click", () => save(button.closest("figure")));
}

// Samples: every method's grid at the evaluation that the slider is at, or its last before that.
const slider = document.getElementById("slider");
if (slider) {
  const { points, histories } = JSON.parse(document.getElementById("slider-data").textContent);
  const figures = [...document.querySelectorAll(".history")];
  const lastSources = figures.map((figure) => figure.querySelector("img").src);
  const play = document.getElementById("play");
  let timer = null;

  const show = () => {
    const position = points[slider.value];
    document.getElementById("seen").textContent = slider.ariaValueText = `${position.toLocaleString("en")} images`;
    figures.forEach((figure, i) => {
      const [images, source, score] = histories[i].findLast((frame) => frame[0] <= position) ?? histories[i][0];
      const img = figure.querySelector("img");
      img.src = source ?? lastSources[i];
      img.alt = img.alt.replace(/after [\d,]+ images$/, `after ${images.toLocaleString("en")} images`);
      figure.querySelector(".score").textContent = score;
      figure.querySelector(".images").textContent = images.toLocaleString("en");
    });
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = play.ariaLabel = "Play";
  };
  const step = () => {
    slider.value = Number(slider.value) + 1;
    show();
    if (slider.value === slider.max) stop();
  };
  slider.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) { slider.value = 0; show(); }
    timer = setInterval(step, 700);
    play.textContent = play.ariaLabel = "Pause";
  });
  slider.value = slider.max; // browsers remember another position over a reload
  show();
  let beforePrint = slider.max;
  matchMedia("print").addEventListener("change", (print) => {
    stop();
    if (print.matches) beforePrint = slider.value;
    slider.value = print.matches ? slider.max : beforePrint;
    show();
  });
}

// Light and dark: as the system has it, until the reader chooses.
const root = document.documentElement;
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";
const nameButton = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; };
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("ganbench-theme", root.dataset.theme); } catch { /* the page works without storage */ }
  nameButton();
});
systemDark.addEventListener("change", nameButton);
nameButton();
