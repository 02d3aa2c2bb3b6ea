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

// On paper nothing can be unfolded, so print everything.
const folded = [...document.querySelectorAll("details:not([open])")];
matchMedia("print").addEventListener("change", (print) => folded.forEach((part) => { part.open = print.matches; }));
