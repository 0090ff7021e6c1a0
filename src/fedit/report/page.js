"use strict";
document.documentElement.classList.add("js");
for (const choice of document.querySelectorAll("select[data-filter]")) {
  const section = choice.closest("section");
  choice.addEventListener("change", () => {
    let shown = 0;
    for (const card of section.querySelectorAll(".card")) {
      card.hidden = choice.value !== "" && card.dataset.category !== choice.value;
      shown += card.hidden ? 0 : 1;
    }
    section.querySelector("output").textContent = shown + " shown";
  });
}
