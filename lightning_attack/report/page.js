"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
// Without plotly's button that sends a chart to its makers.
const OPTIONS = { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "" };

// Charts are drawn when they come into view: a study has many.
const drawn = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) {
      drawn.unobserve(target);
      Plotly.newPlot(target, target.figure.data, target.figure.layout, OPTIONS);
    }
  }
}, { rootMargin: "300px" });

function show(place, figures) {
  for (const old of place.children) {
    drawn.unobserve(old);
    Plotly.purge(old);
  }
  place.replaceChildren(...figures.map((figure) => {
    const chart = document.createElement("div");
    chart.setAttribute("role", "figure");
    chart.setAttribute("aria-label", figure.layout.title.text || figure.layout.xaxis.title.text);
    chart.style.height = `${figure.layout.height}px`;
    chart.figure = figure;
    return chart;
  }));
  for (const chart of place.children) drawn.observe(chart);
}

for (const place of document.querySelectorAll("[data-charts]")) show(place, data.charts[place.dataset.charts]);

// The table: only the rows of the page that is shown are in the document, which thousands would make slow.
const size = Number(at("table").dataset.page);
const body = at("table").tBodies[0];
const rows = [...body.rows];
const texts = new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]));
const filters = [...document.querySelectorAll(".filter")];
let found = rows;

function turn(page) {
  const last = Math.max(0, Math.ceil(found.length / size) - 1);
  const shown = Math.min(Math.max(page, 0), last);
  body.replaceChildren(...found.slice(shown * size, (shown + 1) * size));
  at("pages").hidden = !last;
  offer(at("page"), Array.from({ length: last + 1 }, (_, place) => `${place + 1} of ${last + 1}`), shown);
  at("back").disabled = shown === 0;
  at("on").disabled = shown === last;
}

function filter() {
  const words = at("words").value.toLowerCase().split(/\s+/);
  found = rows.filter((row) => words.every((word) => texts.get(row).includes(word))
    && filters.every(({ value, dataset }) => !value || row.cells[dataset.column].textContent === value));
  at("count").textContent = `${found.length} of ${rows.length} rows`;
  turn(0);
}

function sort(heading) {
  const up = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const numbers = heading.classList.contains("number");
  const key = (row) => row.cells[heading.cellIndex];
  rows.sort((one, other) => {
    if (!numbers) {
      const order = key(one).textContent.localeCompare(key(other).textContent, "en", { numeric: true });
      return up ? order : -order;
    }
    const [a, b] = [one, other].map((row) => key(row).dataset.value);
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // at the end, either way
    return up ? a - b : b - a;
  });
  filter();
}

for (const heading of at("table").tHead.rows[0].cells) {
  heading.firstChild.addEventListener("click", () => sort(heading));
}
at("words").addEventListener("input", filter);
for (const choice of filters) choice.addEventListener("change", filter);
at("page").addEventListener("change", () => turn(at("page").selectedIndex));
at("back").addEventListener("click", () => turn(at("page").selectedIndex - 1));
at("on").addEventListener("click", () => turn(at("page").selectedIndex + 1));
filter();

// One run.
function offer(select, names, wanted = 0) {
  select.replaceChildren(...names.map((name, place) => new Option(name, place)));
  select.selectedIndex = Math.min(wanted, names.length - 1);
}

const chosen = () => data.runs[at("run").selectedIndex];

function showCharts() {
  const { classes, flips } = chosen();
  show(at("run-charts"), [classes[at("target").selectedIndex], ...flips]);
  at("no-flips").hidden = flips.length > 0;
}

function showPictures() {
  const views = chosen().gallery[at("image").selectedIndex];
  for (const side of ["left", "right"]) {
    const [title, content] = views.pictures[at(side).selectedIndex];
    at(`${side}-picture`).src = content;
    at(`${side}-picture`).alt = `${views.name}: ${title}`;
  }
}

function showRun() {
  const run = chosen();
  offer(at("target"), run.targets);
  showCharts();
  at("gallery").hidden = !run.gallery.length;
  at("no-pictures").hidden = run.gallery.length > 0;
  if (!run.gallery.length) return;
  const titles = run.gallery[0].pictures.map(([title]) => title);
  offer(at("image"), run.gallery.map(({ name }) => name), Math.max(0, at("image").selectedIndex));
  offer(at("left"), titles, at("left").selectedIndex < 0 ? 0 : at("left").selectedIndex);
  offer(at("right"), titles, at("right").selectedIndex < 0 ? 1 : at("right").selectedIndex);
  showPictures();
}

offer(at("run"), data.runs.map(({ title }) => title));
at("run").addEventListener("change", showRun);
at("target").addEventListener("change", showCharts);
for (const id of ["image", "left", "right"]) at(id).addEventListener("change", showPictures);
at("wipe").addEventListener("input", () => {
  at("left-picture").style.setProperty("--wipe", `${at("wipe").value}%`);
});
showRun();

// Commands.
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling;
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "copied";
    } catch {
      button.textContent = "selected, press Ctrl+C"; // the browser forbids it
    }
  });
}
