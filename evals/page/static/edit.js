// Correcting: the fields' text boxes hold the answer; marking words in the query writes into them.
import { combobox } from "./combobox.js";

export class Editor {
  constructor(article) {
    this.article = article;
    this.box = article.querySelector(".text");
    this.drafted = [...this.box.childNodes];
    this.words = [...this.box.querySelectorAll(".w")].map((word) => word.textContent);
    this.fields = [...article.querySelectorAll(".field")];
    this.names = this.fields.map((field) => field.dataset.name);
    // By field its values: {text, places}, the places being those of its words in the query, none for typed ones.
    this.values = this.fields.map((field) =>
      [...field.querySelectorAll("input")].map(read).filter((value) => value.text),
    );
    this.begun = this.said;
    this.current = 0;
    this.here = 0;
    for (const input of article.querySelectorAll("[data-closed]")) combobox(input);
    this.listen();
  }

  open() {
    this.article.querySelector(".edit").open = true;
    this.article.classList.add("editing");
    for (const [name, value] of [["role", "listbox"], ["aria-multiselectable", "true"], ["aria-describedby", "hint"], ["tabindex", "0"]])
      this.box.setAttribute(name, value);
    this.choose(0);
    this.box.focus();
  }

  close() {
    this.article.querySelector(".edit").open = false;
    this.article.classList.remove("editing");
    for (const name of ["role", "aria-multiselectable", "aria-describedby", "aria-label", "aria-activedescendant", "tabindex"])
      this.box.removeAttribute(name);
    this.box.replaceChildren(...this.drafted);
  }

  get said() {
    return JSON.stringify(this.values.map((values) => values.map((value) => value.text)));
  }

  get isChanged() {
    return this.isOpen && this.said !== this.begun;
  }

  get isOpen() {
    return this.article.classList.contains("editing");
  }

  listen() {
    this.box.addEventListener("keydown", (event) => this.isOpen && this.key(event));
    this.box.addEventListener("pointerdown", (event) => this.isOpen && this.press(event));
    for (const [number, field] of this.fields.entries()) {
      field.addEventListener("focusin", () => this.isOpen && this.current !== number && this.choose(number));
      field.querySelector(".choose").addEventListener("click", () => {
        this.choose(number);
        this.box.focus({ preventScroll: true });
      });
      field.addEventListener("input", (event) => this.typed(number, event.target));
    }
  }

  choose(number) {
    this.current = number;
    for (const [place, field] of this.fields.entries()) {
      field.classList.toggle("current", place === number);
      field.querySelector(".choose").setAttribute("aria-pressed", place === number);
    }
    this.box.setAttribute("aria-label", `Words of the query, to mark as ${this.names[number]}`);
    this.box.className = `text ${colour(number)}`;
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const forward = getComputedStyle(this.box).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const number = Number(event.key) - 1;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") this.go(this.here + (event.key === forward ? 1 : -1), event.shiftKey);
    else if (event.key === "Home") this.go(0, event.shiftKey);
    else if (event.key === "End") this.go(this.words.length - 1, event.shiftKey);
    else if (event.key === " ") this.toggle(this.here);
    else if (this.fields[number]) this.choose(number);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // To a word; with `marking` everything from where the marking began becomes one value.
  go(place, marking) {
    const from = this.here;
    this.here = Math.max(0, Math.min(this.words.length - 1, place));
    if (!marking) {
      this.gesture = null;
      this.drawCursor();
      return;
    }
    this.gesture ??= { from, before: copy(this.values) };
    this.stretch();
  }

  press(event) {
    const word = event.target.closest(".w");
    if (!word || event.button) return;
    event.preventDefault();
    this.box.focus({ preventScroll: true });
    const from = Number(word.dataset.place);
    const before = copy(this.values);
    let moved = false;
    const move = (next) => {
      const over = document.elementFromPoint(next.clientX, next.clientY)?.closest(".text .w");
      if (!over || (Number(over.dataset.place) === from && !moved)) return;
      moved = true;
      this.gesture = { from, before };
      this.here = Number(over.dataset.place);
      this.stretch();
    };
    const end = (last) => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
      this.here = moved ? this.here : from;
      this.gesture = null;
      if (!moved && last.type === "pointerup") this.toggle(from);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }

  stretch() {
    const { from, before } = this.gesture;
    const [first, last] = [Math.min(from, this.here), Math.max(from, this.here)];
    this.values = copy(before);
    this.mark(Array.from({ length: last - first + 1 }, (_, step) => first + step));
  }

  toggle(place) {
    this.here = place;
    this.gesture = null;
    const own = this.values[this.current].some((value) => value.places.includes(place));
    if (own) {
      this.free([place]);
      this.write();
    } else this.mark([place]);
  }

  // The words at `places` become a value of the current field, and leave whatever value they were in. A field of one
  // value takes them in besides those it has.
  mark(places) {
    const several = "several" in this.fields[this.current].dataset;
    this.free(places);
    const kept = several ? [] : this.values[this.current].flatMap((value) => value.places);
    const all = [...kept, ...places].sort((one, other) => one - other);
    const value = { text: this.text(all), places: all };
    this.values[this.current] = several ? [...this.values[this.current], value] : [value];
    if (several) this.values[this.current].sort((one, other) => (one.places[0] ?? Infinity) - (other.places[0] ?? Infinity));
    this.write();
  }

  free(places) {
    this.values = this.values.map((values) =>
      values
        .map((value) => {
          const left = value.places.filter((place) => !places.includes(place));
          return left.length === value.places.length ? value : { text: this.text(left), places: left };
        })
        .filter((value) => value.text),
    );
  }

  text(places) {
    return places.map((place) => this.words[place]).join(" ");
  }

  // A value typed into a box: its words are looked for among those of the query that no other value has.
  typed(number, input) {
    const inputs = [...this.fields[number].querySelectorAll("input")];
    const others = [...this.values.filter((_, place) => place !== number).flat(), ...inputs.filter((one) => one !== input).map(read)];
    const used = new Set(others.flatMap((value) => value.places));
    input.dataset.words = find(this.words, input.value, used).join(" ");
    this.values[number] = inputs.map(read).filter((value) => value.text);
    if ("several" in this.fields[number].dataset && inputs.at(-1).value) this.another(number);
    this.draw();
  }

  another(number) {
    const last = [...this.fields[number].querySelectorAll(".slotted")].at(-1);
    const next = last.cloneNode(true);
    const input = next.querySelector("input");
    next.querySelector(".options")?.remove();
    input.value = "";
    input.dataset.words = "";
    input.removeAttribute("aria-invalid");
    input.setAttribute("aria-label", `${this.names[number]}, value ${this.fields[number].querySelectorAll("input").length + 1}`);
    last.after(next);
    if ("closed" in input.dataset) combobox(input);
    return input;
  }

  // The values into the text boxes.
  write() {
    for (const [number, field] of this.fields.entries()) {
      const values = this.values[number];
      const wanted = values.length + ("several" in field.dataset ? 1 : 0);
      while (field.querySelectorAll("input").length < wanted) this.another(number);
      for (const [place, input] of [...field.querySelectorAll("input")].entries()) {
        input.value = values[place]?.text ?? "";
        input.dataset.words = values[place]?.places.join(" ") ?? "";
      }
    }
    this.draw();
  }

  // The query with the values' words in their colours, as the server draws it.
  draw() {
    const owner = new Map();
    for (const [number, values] of this.values.entries())
      for (const value of values) for (const place of value.places) owner.set(place, { number, value });
    const parts = [];
    let slot = null;
    for (const place of this.words.keys()) {
      const own = owner.get(place);
      if (own && own.value === owner.get(place - 1)?.value) {
        slot.append(" ", this.word(place, own));
        continue;
      }
      if (place) parts.push(" ");
      if (!own) parts.push(this.word(place));
      else {
        const whole = element("span", `slot ${colour(own.number)}`);
        slot = element("span", "words");
        slot.append(this.word(place, own));
        const tag = element("span", "tag", this.names[own.number]);
        tag.setAttribute("aria-hidden", "true");
        whole.append(slot, tag);
        parts.push(whole);
      }
    }
    this.box.replaceChildren(...parts);
    this.drawCursor();
  }

  word(place, own) {
    const word = element("span", "w", this.words[place]);
    word.id = `w${place}`;
    word.dataset.place = place;
    word.setAttribute("role", "option");
    word.setAttribute("aria-selected", own?.number === this.current);
    if (own) word.setAttribute("aria-label", `${this.words[place]}, ${this.names[own.number]}`);
    return word;
  }

  drawCursor() {
    this.box.querySelector(".here")?.classList.remove("here");
    const word = this.box.querySelector(`#w${this.here}`);
    word?.classList.add("here");
    if (document.activeElement === this.box) word?.scrollIntoView({ block: "nearest" });
    this.box.setAttribute("aria-activedescendant", `w${this.here}`);
  }
}

function read(input) {
  const places = (input.dataset.words || "").split(" ").filter(Boolean).map(Number);
  return { text: input.value.trim(), places };
}

// Where the words of `text` stand side by side among `words`, none of them in `used`.
function find(words, text, used) {
  const wanted = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  for (let start = 0; wanted.length && start + wanted.length <= words.length; start++)
    if (wanted.every((word, step) => words[start + step] === word && !used.has(start + step)))
      return wanted.map((_, step) => start + step);
  return [];
}

function copy(values) {
  return values.map((some) => some.map((value) => ({ ...value })));
}

function colour(number) {
  return `f${(number % 8) + 1}`;
}

function element(name, style, text = "") {
  const made = document.createElement(name);
  made.className = style;
  made.textContent = text;
  return made;
}
