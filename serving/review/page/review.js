// @ts-check
"use strict";
/* Reviewing clips: a list, one clip, and what a person says of it. Every change is on the server's disk before it shows. */

/**
 * @typedef {object} Clip
 * @property {string} clip_id
 * @property {string} source_path
 * @property {string} type
 * @property {number|null} start_s
 * @property {number|null} end_s
 * @property {string} status
 * @property {string[]} reasons
 * @property {string|null} caption
 * @property {string|null} caption_by_hand
 * @property {string|null} review
 * @property {string|null} review_by
 * @property {string|null} review_at
 * @property {string[]|null} review_tags
 * @property {number[]} pictures
 * @property {boolean} has_file
 * @property {Record<string, number|string>} scores
 */

const PAGE = 50;
const NAME = "selects-review-name";

/** @template {HTMLElement} T @param {string} id @returns {T} */
function at(id) {
  const found = /** @type {T|null} */ (document.getElementById(id));
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @param {string} tag @param {string} text @param {string} [kind] @returns {HTMLElement} */
function made(tag, text, kind) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

/** @param {number|null} seconds @returns {string} */
function clock(seconds) {
  if (seconds === null) return "";
  return `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
}

/** @param {Clip} clip @returns {string} */
function placeOf(clip) {
  return clip.start_s === null ? clip.source_path : `${clip.source_path}  ${clock(clip.start_s)} – ${clock(clip.end_s)}`;
}

/** Ask the server. @param {string} address @param {RequestInit} [options] @returns {Promise<any>} */
async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("the server does not answer; is it still running? What was said before is kept.");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error?.message ?? `the server answered ${answer.status}`);
  return body;
}

class Review {
  constructor() {
    /** @type {Clip[]} */
    this.clips = [];
    this.total = 0;
    this.current = -1;
    /** @type {{clip_id: string, values: object}[]} what undoes each change, the last at the end */
    this.undone = [];
    this.asked = 0;
    this.saying = Promise.resolve();
    /** @type {HTMLInputElement} */ (at("by")).value = localStorage.getItem(NAME) ?? "";
    at("by").addEventListener("change", () => localStorage.setItem(NAME, this.by));
    at("filters").addEventListener("submit", (event) => {
      event.preventDefault();
      this.find();
    });
    at("show").addEventListener("change", () => this.find());
    at("list").addEventListener("scroll", () => this.more());
    at("keep").addEventListener("click", () => this.decide("keep"));
    at("drop").addEventListener("click", () => this.decide("drop"));
    at("clear").addEventListener("click", () => this.decide(null));
    at("undo").addEventListener("click", () => this.undo());
    at("save").addEventListener("click", () => this.saveCaption());
    at("machine").addEventListener("click", () => this.say({ caption: null }));
    at("alike").addEventListener("click", () => this.alike());
    at("tags").addEventListener("change", () => this.saveTags());
    at("help-button").addEventListener("click", () => /** @type {HTMLDialogElement} */ (at("help")).showModal());
    at("agreement").addEventListener("toggle", () => this.agree());
    document.addEventListener("keydown", (event) => this.press(event));
  }

  get by() {
    return /** @type {HTMLInputElement} */ (at("by")).value.trim();
  }

  /** @returns {Clip|undefined} */
  get clip() {
    return this.clips[this.current];
  }

  /** @param {unknown} error */
  trouble(error) {
    const line = at("trouble");
    line.hidden = error === null;
    line.textContent = error instanceof Error ? error.message : "";
  }

  /** @param {number} offset @returns {Promise<{total: number, clips: Clip[], counts: Record<string, number>, by: string|null}>} */
  async load(offset) {
    const values = { offset: String(offset), limit: String(PAGE) };
    for (const name of ["show", "like", "words", "where"]) Object.assign(values, { [name]: /** @type {HTMLInputElement} */ (at(name)).value });
    return ask(`api/clips?${new URLSearchParams(values)}`);
  }

  async find() {
    const turn = ++this.asked;
    try {
      const page = await this.load(0);
      if (turn !== this.asked) return; // a later question was asked meanwhile
      this.trouble(null);
      this.clips = page.clips;
      this.total = page.total;
      const how = /** @type {Record<string, string>} */ ({ embedding: "by their pictures", hash: "by their course", words: "by words" });
      at("found").textContent = page.by ? `${page.total} clips ${how[page.by]}, the nearest first` : `${page.total} clips`;
      at("list").replaceChildren(...this.clips.map((clip, place) => this.line(clip, place)));
      this.count(page.counts);
      this.open(this.clips.length ? 0 : -1);
    } catch (error) {
      this.trouble(error);
    }
  }

  /** Find what is like the clip that is open. */
  alike() {
    if (!this.clip) return;
    /** @type {HTMLInputElement} */ (at("like")).value = this.clip.clip_id;
    this.find();
  }

  /** Load the next page when the end of the list is near. */
  async more() {
    const list = at("list");
    if (this.loading || this.clips.length >= this.total || list.scrollTop + list.clientHeight < list.scrollHeight - 400) return;
    this.loading = true;
    const turn = this.asked;
    try {
      const page = await this.load(this.clips.length);
      if (turn !== this.asked) return;
      const known = new Set(this.clips.map((clip) => clip.clip_id));
      for (const clip of page.clips) if (!known.has(clip.clip_id)) list.append(this.line(clip, this.clips.push(clip) - 1));
      if (!page.clips.length) this.total = this.clips.length;
    } catch (error) {
      this.trouble(error);
    } finally {
      this.loading = false;
    }
  }

  /** @param {Record<string, number>} counts */
  count(counts) {
    at("counts").textContent = `${counts.accepted} accepted · ${counts.rejected} rejected · people: ${counts.kept} kept, ${counts.dropped} dropped, ${counts.captioned} captions`;
  }

  /** @param {Clip} clip @param {number} place @returns {HTMLElement} */
  line(clip, place) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const image = new Image();
    image.alt = "";
    image.loading = "lazy";
    if (clip.pictures.length) image.src = `media/picture/${clip.clip_id}/${clip.pictures[0]}`;
    const words = document.createElement("span");
    const said = clip.review ? made("small", `${clip.review} · ${clip.review_by ?? ""}`, clip.review) : made("small", clip.reasons.join(", ") || clip.status);
    words.append(made("b", placeOf(clip)), said, made("small", clip.caption_by_hand ?? clip.caption ?? ""));
    button.append(image, words);
    button.addEventListener("click", () => this.open(place));
    item.className = clip.status;
    item.append(button);
    return item;
  }

  /** @param {number} place */
  open(place) {
    const list = at("list");
    list.children[this.current]?.removeAttribute("aria-current");
    this.current = place;
    at("clip").hidden = !this.clip;
    if (!this.clip) return;
    const line = list.children[place];
    line.setAttribute("aria-current", "true");
    line.scrollIntoView({ block: "nearest" });
    this.show(this.clip);
    this.stage(this.clip);
    if (place >= this.clips.length - 5) this.more();
  }

  /** @param {Clip} clip */
  stage(clip) {
    const stage = at("stage");
    const pictures = clip.pictures.map((number) => {
      const image = new Image();
      image.className = "picture";
      image.alt = "";
      image.src = `media/picture/${clip.clip_id}/${number}`;
      return image;
    });
    stage.replaceChildren();
    if (!clip.has_file) {
      stage.append(...pictures);
      return;
    }
    const isVideo = clip.type === "video";
    const player = /** @type {HTMLVideoElement|HTMLImageElement} */ (document.createElement(isVideo ? "video" : "img"));
    player.className = "file";
    if (player instanceof HTMLVideoElement) Object.assign(player, { controls: true, loop: true, muted: true, autoplay: true, playsInline: true });
    player.addEventListener("error", () => stage.replaceChildren(...pictures));
    player.src = `media/clip/${clip.clip_id}`;
    stage.append(player);
  }

  /** @param {Clip} clip */
  show(clip) {
    at("place").textContent = placeOf(clip);
    const verdict = at("verdict");
    verdict.replaceChildren(made("b", clip.status, clip.status === "accepted" ? "keep" : "drop"));
    verdict.append(clip.reasons.length ? `: ${clip.reasons.join(", ")}` : "", clip.review_by ? ` · ${clip.review_by}, ${clip.review_at}` : "");
    at("keep").setAttribute("aria-pressed", String(clip.review === "keep"));
    at("drop").setAttribute("aria-pressed", String(clip.review === "drop"));
    /** @type {HTMLTextAreaElement} */ (at("caption")).value = clip.caption_by_hand ?? clip.caption ?? "";
    at("whose").textContent = clip.caption_by_hand !== null ? "by hand" : clip.caption !== null ? "the captioner's" : "none yet";
    /** @type {HTMLInputElement} */ (at("tags")).value = (clip.review_tags ?? []).join(", ");
    at("scores").replaceChildren(
      ...Object.entries(clip.scores).map(([name, value]) => {
        const row = document.createElement("tr");
        row.append(made("th", name), made("td", typeof value === "number" ? String(Number(value.toPrecision(4))) : value));
        return row;
      }),
    );
    at("id").textContent = clip.clip_id;
  }

  /** Say something of a clip; one change after the other. @param {object} values @param {string} [clipId] @param {boolean} [isUndo] @returns {Promise<void>} */
  say(values, clipId = this.clip?.clip_id, isUndo = false) {
    this.saying = this.saying.then(async () => {
      const clip = this.clips.find((one) => one.clip_id === clipId);
      if (!clipId) return;
      const before = clip && { review: clip.review, caption: clip.caption_by_hand, tags: clip.review_tags ?? [] };
      try {
        const told = await ask("api/reviews", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ clip_id: clipId, by: this.by, ...values }),
        });
        this.trouble(null);
        if (before && !isUndo) {
          const taken = Object.fromEntries(Object.keys(values).map((name) => [name, /** @type {any} */ (before)[name]]));
          this.undone.push({ clip_id: clipId, values: taken });
        }
        /** @type {HTMLButtonElement} */ (at("undo")).disabled = !this.undone.length;
        this.count(told.counts);
        this.take(told.clip);
      } catch (error) {
        this.trouble(error);
      }
    });
    return this.saying;
  }

  /** Put a clip's new state into its place. @param {Clip} clip */
  take(clip) {
    const place = this.clips.findIndex((one) => one.clip_id === clip.clip_id);
    if (place < 0) return;
    this.clips[place] = clip;
    const line = this.line(clip, place);
    if (place === this.current) {
      line.setAttribute("aria-current", "true");
      this.show(clip);
    }
    at("list").children[place].replaceWith(line);
  }

  /** @param {"keep"|"drop"|null} review */
  decide(review) {
    this.say({ review });
    if (review !== null && this.current + 1 < this.clips.length) this.open(this.current + 1);
  }

  async undo() {
    await this.saying;
    const last = this.undone.pop();
    if (!last) return;
    await this.say(last.values, last.clip_id, true);
    const place = this.clips.findIndex((one) => one.clip_id === last.clip_id);
    if (place >= 0) this.open(place);
  }

  saveCaption() {
    const text = /** @type {HTMLTextAreaElement} */ (at("caption")).value.trim();
    this.say({ caption: text || null });
  }

  saveTags() {
    const words = /** @type {HTMLInputElement} */ (at("tags")).value.split(",").map((word) => word.trim());
    this.say({ tags: words.filter(Boolean) });
  }

  async agree() {
    if (!(/** @type {HTMLDetailsElement} */ (at("agreement")).open)) return;
    try {
      const bounds = await ask("api/agreement");
      const share = (/** @type {number|null} */ value) => (value === null ? "–" : `${Math.round(100 * value)} %`);
      at("bounds").replaceChildren(
        ...bounds.map((/** @type {any} */ bound) => {
          const row = document.createElement("tr");
          const suggested = bound.suggested === null ? "too few verdicts" : `${Number(bound.suggested.toPrecision(4))} (${share(bound.suggested_agreed)})`;
          const cells = [`${bound.column} ${bound.side} ${bound.threshold}`, bound.reviewed, bound.rejected, share(bound.precision), bound.missed, share(bound.agreed), suggested];
          row.append(...cells.map((cell) => made("td", String(cell))));
          return row;
        }),
      );
    } catch (error) {
      this.trouble(error);
    }
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const place = /** @type {HTMLElement} */ (event.target);
    const edits = place.matches("input, textarea, select");
    if (edits) {
      if (event.key === "Escape") {
        if (this.clip) this.show(this.clip);
        place.blur();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        if (place.id === "caption") this.saveCaption();
        place.blur();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const does = /** @type {Record<string, () => void>} */ ({
      j: () => this.current + 1 < this.clips.length && this.open(this.current + 1),
      k: () => this.current > 0 && this.open(this.current - 1),
      y: () => this.decide("keep"),
      n: () => this.decide("drop"),
      u: () => this.decide(null),
      z: () => this.undo(),
      e: () => at("caption").focus(),
      t: () => at("tags").focus(),
      f: () => this.alike(),
      "/": () => at("words").focus(),
      "?": () => /** @type {HTMLDialogElement} */ (at("help")).showModal(),
      " ": () => {
        const video = at("stage").querySelector("video");
        if (video) video.paused ? video.play() : video.pause();
      },
    })[event.key];
    if (!does || (event.key === " " && place.matches("button, summary"))) return;
    event.preventDefault();
    does();
  }
}

const review = new Review();
review.find();
