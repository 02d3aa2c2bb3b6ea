"use strict";

// Tables: a click on a head sorts; what is missing stays last both ways.
function key(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function compare(a, b, way) {
  if (a === null || b === null) return (a === null) - (b === null);
  return way * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}

function sort(head) {
  const table = head.closest("table"), way = head.ariaSort === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [key(row, head.cellIndex), row]);
  rows.sort((a, b) => compare(a[0], b[0], way));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of head.parentNode.cells) other.ariaSort = "none";
  head.ariaSort = way > 0 ? "ascending" : "descending";
}

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// Score curves: one axis at a time.
for (const choice of document.querySelectorAll("input[name=axis]")) {
  const show = () => { if (choice.checked) document.querySelector(".axes").dataset.axis = choice.value; };
  choice.addEventListener("change", show);
  show();
}

// Samples: every method's picture at the moment of the slider, or its last before it.
const slider = document.getElementById("moment");
if (slider) {
  const { moments, films } = JSON.parse(document.getElementById("film").textContent);
  const figures = [...document.querySelectorAll(".film-of")];
  const ends = figures.map((figure) => figure.querySelector("img").src);
  const play = document.getElementById("play");
  let timer = null;

  const show = () => {
    const images = moments[slider.value];
    document.getElementById("seen").textContent = slider.ariaValueText = `${images.toLocaleString("en")} images`;
    figures.forEach((figure, i) => {
      const [at, source, words] = films[i].findLast((frame) => frame[0] <= images) ?? films[i][0];
      const img = figure.querySelector("img");
      img.src = source ?? ends[i];
      img.alt = img.alt.replace(/after [\d,]+ images$/, `after ${at.toLocaleString("en")} images`);
      figure.querySelector(".words").textContent = words;
      figure.querySelector(".at").textContent = at.toLocaleString("en");
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
  slider.value = slider.max; // browsers remember another place over a reload
  show();
  let kept = slider.max;
  matchMedia("print").addEventListener("change", (print) => {
    stop();
    [kept, slider.value] = [slider.value, print.matches ? slider.max : kept];
    show();
  });
}

// Light and dark: as the system has it until asked otherwise.
const root = document.documentElement, theme = document.getElementById("theme");
const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("ganbench-theme", root.dataset.theme); } catch { /* a page need not remember */ }
  name();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
name();

// Paper has no summary to click on, and shows the end of training.
const folded = [...document.querySelectorAll("details:not([open])")];
matchMedia("print").addEventListener("change", (print) => folded.forEach((part) => { part.open = print.matches; }));
