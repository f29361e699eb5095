"use strict";
// Theme: the page follows the system's until it is switched.
const root = document.documentElement;
const theme = document.getElementById("theme");
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const sayTheme = () => { theme.textContent = dark ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  dark = !dark;
  root.style.colorScheme = dark ? "dark" : "light";
  sayTheme();
});
sayTheme();

// Sorting: numbers start with the largest, texts with the first; what is not known comes last.
const numberIn = (text) => Number.parseFloat(text.replace(/[,<\s]/g, ""));
const sort = (table, column) => {
  const heads = [...table.tHead.rows[0].cells];
  const head = heads[column];
  const numeric = head.classList.contains("number");
  const descending = head.ariaSort ? head.ariaSort === "ascending" : numeric;
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const key = (row) => row.cells[column].textContent.trim();
  const known = (text) => (numeric ? !Number.isNaN(numberIn(text)) : text !== "");
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [first, second] = [key(a), key(b)];
    if (!known(first) || !known(second)) return known(second) - known(first);
    const order = numeric ? numberIn(first) - numberIn(second) : first.localeCompare(second);
    return descending ? -order : order;
  });
  table.tBodies[0].append(...rows);
};
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "Sort by this column";
    button.addEventListener("click", () => sort(table, column));
    head.replaceChildren(button);
  });
}

// Confusion matrix: a cell, or a pair of classes in the table of mistakes, shows its images.
const images = JSON.parse(document.getElementById("cell-images").textContent);
const shown = document.getElementById("shown-images");
const cells = [...document.querySelectorAll("button[data-cell]")];
const figureOf = (image, label) => {
  const [figure, picture, caption] = ["figure", "img", "figcaption"].map((tag) => document.createElement(tag));
  picture.setAttribute("src", image.source);
  picture.alt = `${image.name}: ${label}`;
  caption.textContent = `${image.confidence} · ${image.name}`;
  figure.append(picture, caption);
  return figure;
};
const show = (button) => {
  const { cell, label, count } = button.dataset;
  const found = images[cell] ?? [];
  for (const other of cells) other.ariaPressed = String(other.dataset.cell === cell);
  const some = found.length < Number(count) ? `, the surest ${found.length} of them here` : "";
  const none = found.length ? "" : Number(count) ? " Of these no image is kept on this page." : "";
  const head = document.createElement("h3");
  head.textContent = `${label}: ${count} images${found.length ? some : "."}${none}`;
  const strip = document.createElement("div");
  strip.className = "strip";
  strip.append(...found.map((image) => figureOf(image, label)));
  shown.replaceChildren(head, strip);
};
for (const button of cells) button.addEventListener("click", () => show(button));
const first = document.querySelector("button.pair[data-cell]") ?? cells[0];
if (shown && first) show(first);
