// @ts-check
"use strict";
/* A clip as people see it: pictures, scores, reasons, caption; and the dialog that plays it. */

/** Fill a template of the page. @param {string} id @returns {HTMLElement} */
function copyOf(id) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
}

/** @template {HTMLElement} T @param {ParentNode} place @param {string} selector @returns {T} */
function part(place, selector) {
  const found = /** @type {T|null} */ (place.querySelector(selector));
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}

/** @param {number} seconds @returns {string} */
function clock(seconds) {
  if (!(seconds >= 0)) return "";
  const rest = (seconds % 60).toFixed(1).padStart(4, "0");
  const minutes = Math.floor(seconds / 60);
  return minutes >= 60 ? `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** @param {Output} output @param {number} row @returns {string} */
function placeInSource(output, row) {
  const start = numbersOf(output, "start_s")[row];
  const end = numbersOf(output, "end_s")[row];
  return start === start ? `${clock(start)} – ${clock(end)}` : (wordOf(output, "type", row) ?? "");
}

const MOST_MADE = 500;

/** Shows clips of an output. */
class Cards {
  /** @param {Output} output @param {Judge} judge */
  constructor(output, judge) {
    this.output = output;
    this.judge = judge;
    this.pictured = new Set(output.facts.pictured);
    this.isBeside = false;
    /** @type {Map<number, HTMLImageElement[]>} pictures made, to be shown again while a threshold moves */
    this.made = new Map();
    /** @type {Rule[]} */
    this.rules = output.facts.rules;
    this.dialog = /** @type {HTMLDialogElement} */ (document.getElementById("clip"));
    this.dialog.addEventListener("close", () => this.dialog.querySelector("video")?.pause());
    part(this.dialog, ".close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  /** Find out whether the folder of pictures lies beside the page. @returns {Promise<void>} */
  async look() {
    const row = this.output.pictures.findIndex((count) => count > 0);
    if (row < 0) return;
    const image = new Image();
    await new Promise((settled) => {
      image.onload = image.onerror = settled;
      image.src = this.pictureAddress(row, 0);
    });
    this.isBeside = image.naturalWidth > 0;
    this.made.clear();
  }

  /** @param {number} row @param {number} number @returns {string} */
  pictureAddress(row, number) {
    const id = clipId(this.output, row);
    return `${this.output.facts.base}previews/${id.slice(0, 2)}/${id}-${number}.jpg`;
  }

  /** Whether all there is of a clip's pictures can be shown. @param {number} row @returns {boolean} */
  hasPictures(row) {
    return this.isBeside || this.pictured.has(row) || !this.output.pictures[row];
  }

  /** @param {number} row @returns {HTMLImageElement[]} */
  pictures(row) {
    const embedded = this.pictured.has(row) ? textOf(`${this.output.prefix}-pictures-${row}`).trim().split(" ") : [];
    const count = this.isBeside ? this.output.pictures[row] : 0;
    const there = embedded.length ? embedded.map((text) => `data:image/jpeg;base64,${text}`) : Array.from({ length: count }, (_, i) => this.pictureAddress(row, i));
    return there.map((address) => {
      const image = new Image();
      image.alt = "";
      image.decoding = "async";
      image.loading = "lazy";
      image.onerror = () => image.remove();
      image.src = address;
      return image;
    });
  }

  /** @param {number} row @param {Verdicts} verdicts @param {string|null} marked column to show first @param {Set<HTMLImageElement>} shownNow pictures in use on the page @returns {HTMLElement} */
  card(row, verdicts, marked, shownNow = new Set()) {
    const { output } = this;
    const card = copyOf("card");
    card.dataset.row = String(row);
    const strip = part(card, ".strip");
    const made = this.made.get(row) ?? this.pictures(row);
    if (this.made.size > MOST_MADE) this.made.clear();
    // A clip that two panes show has pictures of its own in each.
    this.made.set(row, made);
    strip.append(...(made.some((image) => shownNow.has(image)) ? this.pictures(row) : made));
    for (const image of made) shownNow.add(image);
    if (!strip.childElementCount) strip.textContent = this.output.pictures[row] ? "pictures are in previews/, not in this page" : "no pictures";
    const status = verdicts.status[row];
    const word = status === ACCEPTED ? "accepted" : status === FAILED ? "failed" : "rejected";
    card.classList.add(word);
    part(card, ".status").textContent = word;
    const reasons = this.judge.reasons(this.rules, row);
    part(card, ".reasons").textContent = reasons.join(", ");
    const path = wordOf(output, "source_path", row) ?? "";
    part(card, ".source").textContent = path;
    part(card, ".source").title = path;
    part(card, ".time").textContent = placeInSource(output, row);
    part(card, ".caption").textContent = output.captions[row] ?? output.errors.get(row)?.slice(0, 300) ?? "";
    const under = this.rules.map((rule) => rule.column).filter((name) => name !== marked);
    for (const name of [...(marked ? [marked] : []), ...under].slice(0, 5)) {
      const value = numbersOf(output, name)[row];
      if (value !== value && name !== marked) continue;
      const item = document.createElement("li");
      item.textContent = `${name} ${shown(value)}`;
      item.classList.toggle("marked", name === marked);
      part(card, ".scores").append(item);
    }
    const button = part(card, "button");
    button.setAttribute("aria-label", `${word}: ${path} ${placeInSource(output, row)}`);
    button.addEventListener("click", () => this.open(row, verdicts));
    return card;
  }

  /** @param {number} row @param {Verdicts} verdicts */
  open(row, verdicts) {
    const { output, dialog } = this;
    const status = verdicts.status[row];
    part(dialog, "h2").textContent = `${wordOf(output, "source_path", row) ?? ""}  ${placeInSource(output, row)}`;
    const stage = part(dialog, ".stage");
    stage.replaceChildren();
    const isVideo = wordOf(output, "type", row) === "video";
    const strip = document.createElement("div");
    strip.className = "strip";
    strip.append(...this.pictures(row));
    if (output.hasFile[row]) {
      const player = /** @type {HTMLVideoElement|HTMLImageElement} */ (document.createElement(isVideo ? "video" : "img"));
      if (player instanceof HTMLVideoElement) Object.assign(player, { controls: true, loop: true, playsInline: true });
      player.addEventListener("error", () => {
        player.remove();
        part(dialog, ".note").textContent = "Its file does not lie beside this page.";
      });
      player.src = `${output.facts.base}train/${clipId(output, row)}.${isVideo ? "mp4" : "jpg"}`;
      stage.append(player);
      if (player instanceof HTMLVideoElement) playWithSound(player);
    }
    stage.append(strip);
    part(dialog, ".note").textContent = output.hasFile[row] ? "" : "No file was cut of it: only accepted clips have one.";
    part(dialog, ".verdict").textContent = status === ACCEPTED ? "accepted" : status === FAILED ? "failed" : `rejected: ${this.judge.reasons(this.rules, row).join(", ")}`;
    part(dialog, ".caption").textContent = output.captions[row] ?? "";
    part(dialog, ".error").textContent = output.errors.get(row) ?? "";
    part(dialog, ".id").textContent = clipId(output, row);
    const table = part(dialog, "tbody");
    table.replaceChildren(
      ...output.facts.columns.map((column) => {
        const line = document.createElement("tr");
        const name = document.createElement("th");
        name.scope = "row";
        name.textContent = column.name;
        const value = document.createElement("td");
        value.textContent = `${shown(numbersOf(output, column.name)[row])} ${column.unit}`;
        const meaning = document.createElement("td");
        meaning.textContent = column.meaning;
        line.append(name, value, meaning);
        return line;
      }),
    );
    dialog.showModal();
  }
}

/**
 * Play with sound, which browsers allow after a click; where one does not, moving pictures without it.
 *
 * @param {HTMLVideoElement} player
 */
function playWithSound(player) {
  player.play().catch((error) => {
    if (error.name !== "NotAllowedError") return;
    player.muted = true;
    player.play().catch(() => {});
  });
}
