"use strict";

// The page of a sweep that runs: it asks the server how far the runs are, as often as the server says.
const SECONDS = Number(document.getElementById("progress").dataset.seconds); // until the next look, where no answer says it
const CURVES = { score: "Score", d_loss: "Critic loss", g_loss: "Generator loss" };
const WIDTH = 460, HEIGHT = 310, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 40;
const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

function element(name, attributes = {}, ...children) {
  const isDrawn = ["svg", "path", "line", "text", "g"].includes(name);
  const made = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function methodColors(runs) {
  const methods = [...new Set(runs.map((run) => run.method).filter(Boolean))].sort();
  return new Map(methods.map((method, i) => [method, `var(--c${i % 8})`]));
}

// The table of runs.
function describeRun(run) {
  const score = run.curves.score.at(-1);
  const bar = element("progress", { max: run.budget ?? 1, value: run.images, "aria-label": `${run.name}: images` });
  return element("tr", {},
    element("th", { scope: "row" }, run.name),
    element("td", {}, run.reason ? `${run.status}: ${run.reason}` : run.status),
    element("td", {}, bar),
    element("td", {}, `${run.images.toLocaleString("en")}${run.budget ? ` of ${run.budget.toLocaleString("en")}` : ""}`),
    element("td", {}, score ? `${run.metric} ${number(score[1])}` : ""),
    element("td", {}, `${run.seconds} s`));
}

function showRuns({ runs, ended, left }) {
  const rows = runs.map(describeRun);
  document.querySelector("#live-runs tbody").replaceChildren(...rows);
  const share = runs.reduce((sum, run) => sum + (run.budget ? run.images / run.budget : 0), 0) / runs.length;
  document.getElementById("all").value = ended === runs.length ? 1 : share;
  const counted = `${ended} of ${runs.length} runs have ended`;
  document.getElementById("now").textContent = left ? `${counted}, ${left}` : counted;
}

// The curves: a line for each run, in the color of its method.
function scale(values, low, high, isLog) {
  const f = isLog ? Math.log10 : (x) => x;
  const [from, to] = [f(Math.min(...values)), f(Math.max(...values))];
  return (x) => low + (to > from ? (f(x) - from) / (to - from) : 0.5) * (high - low);
}

function ticks(values, isLog) {
  const [from, to] = [Math.min(...values), Math.max(...values)];
  const at = (share) => (isLog ? from * (to / from) ** share : from + (to - from) * share);
  return to > from ? [0, 1 / 3, 2 / 3, 1].map(at) : [from];
}

function draw(name, runs, colors) {
  const lines = runs.map((run) => [run, run.curves[name]]).filter(([, points]) => points.length);
  const xs = lines.flatMap(([run, points]) => [0, run.budget ?? 0, ...points.map((point) => point[0])]);
  const ys = lines.flatMap(([, points]) => points.map((point) => point[1]));
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": CURVES[name] });
  if (ys.length) {
    const isLog = name === "score" && Math.min(...ys) > 0;
    const x = scale(xs, LEFT, WIDTH - RIGHT, false);
    const y = scale(ys, HEIGHT - BOTTOM, TOP, isLog);
    for (const value of ticks(ys, isLog)) {
      svg.append(element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), stroke: "var(--line)" }));
      svg.append(element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
    }
    for (const value of [0, Math.max(...xs)]) {
      const anchor = value ? "end" : "start";
      svg.append(element("text", { x: x(value), y: HEIGHT - BOTTOM + 18, "text-anchor": anchor }, value.toLocaleString("en")));
    }
    for (const [run, points] of lines) {
      const path = points.map((point, i) => `${i ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
      svg.append(element("path", { d: path, fill: "none", stroke: colors.get(run.method), "stroke-width": 1.6, "data-run": run.name }));
    }
  }
  svg.append(element("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "real images seen"));
  return element("figure", { class: "plot" }, element("figcaption", {}, CURVES[name]), svg);
}

function showCurves(runs) {
  const colors = methodColors(runs);
  const entries = [...colors].map(([method, color]) =>
    element("li", {}, element("span", { class: "dot", style: `background: ${color}` }), method));
  document.getElementById("live-legend").replaceChildren(...entries);
  document.getElementById("live-curves").replaceChildren(...Object.keys(CURVES).map((name) => draw(name, runs, colors)));
}

// The report of the runs that have ended: the server says when there is a newer one.
let shownReport = 0;
const frame = document.getElementById("report-page");
const reportOf = document.getElementById("report-of");

// Pages of the report stay in its frame; a run's folder and its page at W&B open on their own.
function openLinksOutside(page) {
  for (const link of page.querySelectorAll("a[href]")) {
    if (!/^#|report\.html$/.test(link.getAttribute("href"))) link.target = "_blank";
  }
}

function showReport({ report, ended, runs }) {
  if (ended && !report) {
    reportOf.textContent = "Made as soon as that costs the sweep no more than 1 % of its time, or all runs have ended.";
  }
  if (report === shownReport) return;
  shownReport = report;
  reportOf.textContent = `Making the report of the ${report} runs that have ended …`;
  frame.onload = () => {
    reportOf.textContent = `Of the ${report} of ${runs.length} runs that had ended when it was made.`;
    openLinksOutside(frame.contentDocument);
    frame.style.height = `${frame.contentDocument.documentElement.scrollHeight + 20}px`;
  };
  frame.hidden = false;
  frame.src = `report.html?of=${report}`;
}

async function look() {
  let again = SECONDS;
  if (!document.hidden) {
    try {
      const progress = await (await fetch("progress.json")).json();
      again = progress.again;
      showRuns(progress);
      showCurves(progress.runs);
      showReport(progress);
      document.getElementById("news").textContent = "";
    } catch {
      document.getElementById("news").textContent = "The server does not answer: it has ended, and this is what it last said.";
    }
  }
  setTimeout(look, 1000 * again);
}
look();
