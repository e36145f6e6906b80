"use strict";
// Tables are sorted and filtered, and figures enlarged, where scripts run; without, all is there.

function cellValue(row, column) {
  const cell = row.cells[column];
  const text = (cell.dataset.sort ?? cell.textContent).trim();
  const number = Number(text.replace(/^[<>]\s*/, ""));
  return text === "" || text === "n/a" || text === "–" ? null : Number.isNaN(number) ? text : number;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // what lacks stands last
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, header) {
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows).map((row) => [cellValue(row, header.cellIndex), row]);
  rows.sort((one, other) => compare(one[0], other[0], down ? -1 : 1));
  body.append(...rows.map((pair) => pair[1]));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const header of table.tHead.rows[0].cells) {
    header.tabIndex = 0;
    header.addEventListener("click", () => sortBy(table, header));
    header.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sortBy(table, header);
      }
    });
  }
}

for (const tools of document.querySelectorAll("[data-filters]")) {
  const table = document.getElementById(tools.dataset.filters);
  const shown = document.getElementById(tools.dataset.count);
  const rows = Array.from(table.tBodies[0].rows).map((row) => [row, row.textContent.toLowerCase()]);
  tools.addEventListener("input", () => {
    const words = tools.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const choices = Array.from(tools.querySelectorAll("select")).filter((choice) => choice.value);
    let count = 0;
    for (const [row, text] of rows) {
      const fits = choices.every((choice) => row.dataset[choice.dataset.key] === choice.value);
      row.hidden = !(fits && words.every((word) => text.includes(word)));
      count += row.hidden ? 0 : 1;
    }
    if (shown) shown.textContent = `${count} of ${rows.length} scans`;
  });
}

for (const frame of document.querySelectorAll("figure .frame")) {
  frame.addEventListener("click", () => frame.parentElement.classList.toggle("large"));
}

// Printed pages show the provenance, whether or not it is open on the screen.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details.printed")) part.open = true;
});
