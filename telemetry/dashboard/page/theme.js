// Colours: the system's, or those chosen here. Loaded before the page is drawn, so that it never flashes.
"use strict";
(() => {
  const CHOICES = ["auto", "light", "dark"];
  const LABELS = { auto: "Auto", light: "Light", dark: "Dark" };

  /** @returns {string} */
  const stored = () => {
    try {
      const found = localStorage.getItem("postern-theme");
      return found !== null && CHOICES.includes(found) ? found : "auto";
    } catch {
      return "auto"; // storage may be closed
    }
  };

  /** @param {string} choice */
  const apply = (choice) => {
    if (choice === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", choice);
    const button = document.getElementById("theme");
    if (button !== null) {
      const label = document.createElement("span");
      label.textContent = ` ${LABELS[choice]}`;
      button.replaceChildren("◐", label);
      button.setAttribute("aria-label", `Colours: ${LABELS[choice]}. Change`);
    }
  };

  let chosen = stored();
  apply(chosen);
  document.addEventListener("DOMContentLoaded", () => {
    apply(chosen);
    document.getElementById("theme")?.addEventListener("click", () => {
      chosen = CHOICES[(CHOICES.indexOf(chosen) + 1) % CHOICES.length];
      try {
        localStorage.setItem("postern-theme", chosen);
      } catch {
        // it holds for this visit alone
      }
      apply(chosen);
    });
  });
})();
