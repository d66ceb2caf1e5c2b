// The command palette (Ctrl-K) and the list of shortcuts (?). Everything they lead to is a link elsewhere.
"use strict";

(() => {
  const SINGLE_KEYS = "hookturn-single-keys";
  const GO_WITHIN = 1500;
  const isOn = () => localStorage.getItem(SINGLE_KEYS) !== "off";

  const make = (tag, attributes, ...inside) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };

  // A dialog with a title and a way out; Escape and a press outside close it, and the focus goes back.
  const dialog = (id, title, ...inside) => {
    const close = make("button", { type: "button", class: "quiet" }, "Close");
    const made = make(
      "dialog",
      { id, class: "overlay", "aria-labelledby": `${id}-title` },
      make("div", { class: "overlay-head" }, make("h2", { id: `${id}-title` }, title), close),
      ...inside,
    );
    close.addEventListener("click", () => made.close());
    made.addEventListener("click", (event) => {
      const { left, right, top, bottom } = made.getBoundingClientRect();
      const { clientX: x, clientY: y } = event;
      if (event.target === made && (x < left || x > right || y < top || y > bottom)) made.close();
    });
    document.body.append(made);
    return made;
  };

  // ----- the palette -----

  let palette;
  let commands = [];
  let shown = [];
  let chosen = 0;

  const choose = (to) => {
    const { field, list } = palette;
    chosen = shown.length ? (to + shown.length) % shown.length : 0;
    [...list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === chosen)));
    const option = list.children[chosen];
    if (option) {
      field.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else field.removeAttribute("aria-activedescendant");
  };

  const filter = () => {
    const { field, list, count } = palette;
    const words = field.value.toLowerCase().split(/\s+/);
    shown = commands.filter(({ name, kind }) => {
      const text = `${name} ${kind}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    list.replaceChildren(
      ...shown.map(({ name, kind }, at) => {
        const option = make("li", { role: "option", id: `palette-${at}` }, make("bdi", {}, name), make("span", { class: "hint" }, kind));
        option.addEventListener("click", () => go(at));
        return option;
      }),
    );
    count.textContent = shown.length ? `${shown.length} found` : "Nothing matches";
    choose(0);
  };

  const go = (at) => {
    const command = shown[at];
    if (!command) return;
    palette.box.close();
    location.assign(new URL(command.path, document.baseURI));
  };

  const build = () => {
    const list = make("ul", { id: "palette-list", role: "listbox", "aria-label": "Places" });
    const field = make("input", {
      id: "palette-field", type: "text", role: "combobox", "aria-expanded": "true", "aria-autocomplete": "list",
      "aria-controls": "palette-list", autocomplete: "off", spellcheck: "false",
    });
    const count = make("p", { class: "hint", role: "status" });
    const label = make("label", { for: "palette-field" }, "Page, app or action");
    const box = dialog("palette", "Go to", label, field, count, list);
    field.addEventListener("input", filter);
    field.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) choose(chosen + step);
      else if (event.key === "Home" && event.ctrlKey) choose(0);
      else if (event.key === "End" && event.ctrlKey) choose(-1);
      else if (event.key === "Enter") go(chosen);
      else return;
      event.preventDefault();
    });
    palette = { box, field, list, count };
  };

  const openPalette = async () => {
    if (!palette) build();
    const { box, field, count } = palette;
    if (box.open) return box.close();
    document.querySelector("dialog[open]")?.close();
    field.value = "";
    box.showModal();
    field.focus();
    count.textContent = "Loading";
    try {
      const answer = await fetch(new URL("palette", document.baseURI), { headers: { accept: "application/json" } });
      if (answer.redirected) return location.reload();
      if (!answer.ok) throw new Error(answer.statusText);
      commands = await answer.json();
      filter();
    } catch {
      commands = [];
      filter();
      count.textContent = "The server does not answer: close this and try again";
    }
  };

  // ----- the shortcuts -----

  const places = () => [...document.querySelectorAll("[data-go]")];

  const openShortcuts = () => {
    document.querySelector("dialog[open]")?.close();
    document.getElementById("shortcuts")?.remove();
    const rows = [
      ["Ctrl K", "Go to a page, an app or an action"],
      ["?", "This list"],
      ...places().map((link) => [`g ${link.dataset.go}`, link.textContent]),
      ["Esc", "Close what is open"],
    ];
    const keys = make("dl", { class: "pairs" });
    for (const [key, words] of rows) keys.append(make("dt", {}, make("kbd", {}, key)), make("dd", {}, words));
    const box = make("input", { type: "checkbox", id: "single-keys" });
    box.checked = isOn();
    box.addEventListener("change", () => localStorage.setItem(SINGLE_KEYS, box.checked ? "on" : "off"));
    const tick = make("label", { class: "tick", for: "single-keys" }, box, "Keys without Ctrl work");
    dialog("shortcuts", "Keyboard shortcuts", keys, tick).showModal();
  };

  let goUntil = 0;
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      openPalette();
      return;
    }
    const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (!isOn() || isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "?") {
      event.preventDefault();
      openShortcuts();
    } else if (event.timeStamp < goUntil) {
      goUntil = 0;
      places().find((link) => link.dataset.go === event.key)?.click();
    } else if (event.key === "g") goUntil = event.timeStamp + GO_WITHIN;
  });

  for (const button of document.querySelectorAll("[data-palette]")) {
    button.hidden = false;
    button.addEventListener("click", openPalette);
  }
  for (const button of document.querySelectorAll("[data-shortcuts]")) {
    button.hidden = false;
    button.addEventListener("click", openShortcuts);
  }
})();
