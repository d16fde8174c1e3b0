// A text box with the allowed values under it, as the ARIA pattern has it: arrows choose, Enter takes, Esc closes.

const MOST = 50;

export function combobox(input) {
  const values = [...document.getElementById(input.dataset.closed).options].map((option) => option.value);
  const list = document.createElement("ul");
  let chosen = -1;
  list.id = `options-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  list.className = "options";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Allowed values");
  input.removeAttribute("list");
  input.after(list);
  for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-controls", list.id], ["aria-expanded", "false"]])
    input.setAttribute(name, value);

  function fitting() {
    const typed = input.value.trim().toLowerCase();
    const found = values.filter((value) => value.includes(typed));
    found.sort((one, other) => !one.startsWith(typed) - !other.startsWith(typed));
    return found.slice(0, MOST);
  }

  function open() {
    list.replaceChildren(...fitting().map((value, number) => {
      const option = document.createElement("li");
      option.id = `${list.id}-${number}`;
      option.setAttribute("role", "option");
      option.textContent = value;
      return option;
    }));
    if (!list.children.length) return close();
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    choose(-1);
  }

  function close() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    choose(-1);
  }

  function choose(number) {
    chosen = number;
    for (const [place, option] of [...list.children].entries()) option.setAttribute("aria-selected", place === number);
    if (number < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[number].id);
    list.children[number].scrollIntoView({ block: "nearest" });
  }

  function take(option) {
    input.value = option.textContent;
    close();
    input.dispatchEvent(new Event("input", { bubbles: true }));
    close();
  }

  input.addEventListener("input", open);
  input.addEventListener("click", open);
  input.addEventListener("blur", close);
  list.addEventListener("pointerdown", (event) => {
    event.preventDefault(); // the focus stays in the box
    const option = event.target.closest("li");
    if (option) take(option);
  });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      if (list.hidden) open();
      const count = list.children.length;
      if (count) choose(chosen < 0 && step < 0 ? count - 1 : (chosen + step + count) % count);
    } else if (event.key === "Enter" && !list.hidden && chosen >= 0) take(list.children[chosen]);
    else if (event.key === "Escape" && !list.hidden) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}
