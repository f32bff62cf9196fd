(() => {
  const table = document.getElementById("trials"), body = table.tBodies[0], rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent.trim();
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      });
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
  const form = document.getElementById("filter"), text = form.elements.text, outcome = form.elements.outcome;
  const shown = form.querySelector("output");
  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach(row => {
      const told = row.textContent.toLowerCase();
      row.hidden = !words.every(word => told.includes(word)) || (outcome.value !== "" && row.dataset.outcome !== outcome.value);
    });
    shown.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} trials`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = false;
  apply();
})();
