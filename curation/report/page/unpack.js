// @ts-check
"use strict";
/* Outputs as `pack.py` wrote them. */

/** @typedef {{column: string, min: number|null, max: number|null}} Rule */

/**
 * @typedef {object} Facts
 * @property {string} name
 * @property {string} out
 * @property {string} base where its folder lies, seen from the page: the start of addresses
 * @property {number} rows
 * @property {{name: string, unit: string, meaning: string, media: string[], is_judgeable: boolean, is_plotted: boolean, is_whole: boolean}[]} columns
 * @property {Rule[]} rules
 * @property {string[][]} stages
 * @property {boolean} score_rejected
 * @property {boolean} cuts_files
 * @property {number[]|null} caption_rows rows whose captions the page holds; null: all
 * @property {[string, number][]} phrases
 * @property {number} phrases_of
 * @property {number[]} pictured
 * @property {[number, number][]} duplicates
 */

/**
 * @typedef {object} Output
 * @property {string} prefix of its elements' ids
 * @property {Facts} facts
 * @property {Map<string, Float64Array>} numbers by column; missing is NaN
 * @property {Record<string, Int32Array>} codes positions in `words`; missing is -1
 * @property {Record<string, string[]>} words
 * @property {Uint8Array} ids 16 bytes a row
 * @property {Float64Array} hasFile
 * @property {Float64Array} pictures how many lie in previews/
 * @property {(string|null)[]} captions by row
 * @property {Map<number, string>} errors by row
 */

/** @param {string} id @returns {string} */
function textOf(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element.textContent ?? "";
}

/** @param {string} text @returns {Uint8Array<ArrayBuffer>} */
function fromBase64(text) {
  const native = /** @type {any} */ (Uint8Array).fromBase64;
  if (native) return native.call(Uint8Array, text);
  const bytes = atob(text);
  return Uint8Array.from(bytes, (letter) => letter.charCodeAt(0));
}

/** @param {string} id @returns {Promise<Uint8Array<ArrayBuffer>>} */
async function unzipped(id) {
  const stream = new Blob([fromBase64(textOf(id).trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Undo the grouping of bytes by significance. @param {Uint8Array} bytes @param {number} size @returns {ArrayBuffer} */
function regrouped(bytes, size) {
  const count = bytes.length / size;
  const items = new Uint8Array(bytes.length);
  for (let part = 0; part < size; part++) {
    for (let row = 0, from = part * count, to = part; row < count; row++, from++, to += size) items[to] = bytes[from];
  }
  return items.buffer;
}

/** @param {string} id @returns {Promise<any>} */
async function unpackTexts(id) {
  return JSON.parse(new TextDecoder().decode(await unzipped(id)));
}

/** @param {string} prefix @returns {Promise<Output>} */
async function unpackOutput(prefix) {
  /** @type {Facts} */
  const facts = JSON.parse(textOf(`${prefix}-facts`));
  /** @type {Map<string, Float64Array>} */
  const numbers = new Map();
  /** @type {Record<string, Int32Array>} */
  const codes = {};
  /** @type {Record<string, string[]>} */
  const words = {};
  for (const column of facts.columns) {
    numbers.set(column.name, new Float64Array(regrouped(await unzipped(`${prefix}-column-${column.name}`), 8)));
  }
  for (const name of ["type", "kind", "status", "caption_status", "review", "source_path"]) {
    codes[name] = new Int32Array(regrouped(await unzipped(`${prefix}-codes-${name}`), 4));
    words[name] = await unpackTexts(`${prefix}-words-${name}`);
  }
  const held = await unpackTexts(`${prefix}-captions`);
  /** @type {(string|null)[]} */
  let captions = held;
  if (facts.caption_rows) {
    captions = new Array(facts.rows).fill(null);
    facts.caption_rows.forEach((row, place) => (captions[row] = held[place]));
  }
  return {
    prefix,
    facts,
    numbers,
    codes,
    words,
    captions,
    ids: new Uint8Array(regrouped(await unzipped(`${prefix}-ids`), 1)),
    pictures: new Float64Array(regrouped(await unzipped(`${prefix}-pictures`), 8)),
    hasFile: new Float64Array(regrouped(await unzipped(`${prefix}-has_file`), 8)),
    errors: new Map(await unpackTexts(`${prefix}-errors`)),
  };
}

/** @param {Output} output @param {string} name @param {number} row @returns {string|null} */
function wordOf(output, name, row) {
  const code = output.codes[name][row];
  return code < 0 ? null : output.words[name][code];
}

/** @param {Output} output @param {number} row @returns {string} */
function clipId(output, row) {
  const hex = Array.from(output.ids.subarray(16 * row, 16 * row + 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** @param {Output} output @param {string} column @returns {Float64Array} */
function numbersOf(output, column) {
  const values = output.numbers.get(column);
  if (!values) throw new Error(`the page has no column ${column}`);
  return values;
}
