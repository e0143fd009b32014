// @ts-check
"use strict";
/* What the captions are like, and the search through them. */

/** Rows whose caption, source or error holds every word. @param {Output} output @param {string} question @returns {number[]} */
function search(output, question) {
  const words = question.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const paths = output.words.source_path.map((path) => path.toLowerCase());
  /** @type {number[]} */
  const found = [];
  for (let row = 0; row < output.facts.rows; row++) {
    const caption = (output.captions[row] ?? "").toLowerCase();
    const path = paths[output.codes.source_path[row]] ?? "";
    const error = (output.errors.get(row) ?? "").toLowerCase();
    if (words.every((word) => caption.includes(word) || path.includes(word) || error.includes(word))) found.push(row);
  }
  return found;
}

/** Lengths in words; for scripts without spaces, in characters. @param {Output} output @returns {Float64Array} */
function captionLengths(output) {
  const lengths = new Float64Array(output.facts.rows).fill(NaN);
  output.captions.forEach((caption, row) => {
    if (caption !== null) lengths[row] = /[\u3040-\u30ff\u4e00-\u9fff]/.test(caption) ? caption.length : caption.split(/\s+/).filter(Boolean).length;
  });
  return lengths;
}

/** How many captions have each status. @param {Output} output @returns {[string, number][]} */
function captionFlags(output) {
  const counts = output.words.caption_status.map((word) => /** @type {[string, number]} */ ([word, 0]));
  for (const code of output.codes.caption_status) if (code >= 0) counts[code][1]++;
  return counts.sort((a, b) => b[1] - a[1]);
}
