"use strict";
// Sorts and filters; without it the page is a plain table with its images.
{
  const byId = (id) => document.getElementById(id);
  const body = document.querySelector("#files tbody");
  const headings = [...document.querySelectorAll("#files thead th")];
  const rows = [...body.rows].map((row) => ({
    row,
    entry: byId(row.dataset.file),
    name: row.cells[1].textContent.toLowerCase(),
    values: [...row.cells].map(valueOf),
  }));
  const words = new Intl.Collator(undefined, { numeric: true });

  // A number, a text, or null where there is none: those stand last, whichever way.
  function valueOf(cell) {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.classList.contains("number") ? null : cell.textContent;
  }

  function compare(a, b) {
    return typeof a === "number" ? a - b : words.compare(a, b);
  }

  function sort(column, direction) {
    const ordered = rows.slice().sort((one, other) => {
      const a = one.values[column], b = other.values[column];
      if (a === null || b === null) return (a === null) - (b === null);
      return direction * compare(a, b);
    });
    body.append(...ordered.map(({ row }) => row));
    byId("articles").append(...ordered.map(({ entry }) => entry));
    headings.forEach((heading, i) => {
      if (i === column) {
        heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      } else {
        heading.removeAttribute("aria-sort");
      }
    });
  }

  function filter() {
    const wanted = byId("words").value.toLowerCase().trim();
    const verdict = byId("verdict").value, status = byId("status").value;
    let shown = 0;
    for (const { row, entry, name } of rows) {
      const fits = name.includes(wanted)
        && (!verdict || row.dataset.verdict === verdict)
        && (!status || row.dataset.status === status);
      row.classList.toggle("filtered", !fits);
      entry.classList.toggle("filtered", !fits);
      shown += fits;
    }
    byId("shown").textContent = `${shown} of ${rows.length} shown`;
  }

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      // The most suspicious first, names from A on.
      const sorted = heading.getAttribute("aria-sort");
      const counts = ({ values }) => typeof values[column] === "number";
      const first = column > 0 && rows.some(counts) ? -1 : 1;
      sort(column, sorted ? (sorted === "ascending" ? -1 : 1) : first);
    });
  });
  headings[0].setAttribute("aria-sort", "ascending");
  for (const id of ["words", "verdict", "status"]) {
    byId(id).addEventListener("input", filter);
  }
  byId("marked").addEventListener("change", (event) => {
    document.body.classList.toggle("unmarked", !event.target.checked);
  });
  byId("controls").hidden = false;
  filter();
}
