// @ts-check
"use strict";
/*
 * Rules over scores, as `curation/judge.py` has them: the counts shown are those that `select` gives.
 *
 * What a rule says of a row: 0 passes, 1 low, 2 high, 3 missing, 4 the column is not for this type of row.
 */

/**
 * @typedef {object} Verdicts
 * @property {Uint8Array} status 0 rejected, 1 accepted, 2 failed
 * @property {Int16Array} first position in `names` of the first reason; -1: none
 * @property {string[]} names of reasons, in the order in which they are tried
 * @property {Float64Array} lost rows by first reason
 * @property {Float64Array} lostHours
 * @property {Float64Array} alone rows that nothing else measured rejects: without this reason they may come back
 * @property {Int16Array} only the reason of a row that nothing else measured rejects; else -1
 * @property {number} accepted
 * @property {number} rejected
 * @property {number} failed
 * @property {number} hours
 * @property {number} acceptedHours
 * @property {Rule[]} rules
 */

const ACCEPTED = 1;
const FAILED = 2;
const MISSING = 3;
const NOT_FOR_THIS = 4;
const COPY = "duplicate_of";
const DROPPED = "review:drop";

/** Forgive the last digits, as `judge.py` does. @param {number} bound @returns {number} */
function slack(bound) {
  return 1e-6 * Math.max(1, Math.abs(bound));
}

/** @param {Output} output @param {Rule} rule @returns {Uint8Array} */
function codesOfRule(output, rule) {
  const values = numbersOf(output, rule.column);
  const media = output.facts.columns.find((column) => column.name === rule.column)?.media ?? [];
  const isFor = output.words.type.map((type) => media.includes(type));
  const low = rule.min === null ? -Infinity : rule.min - slack(rule.min);
  const high = rule.max === null ? Infinity : rule.max + slack(rule.max);
  const codes = new Uint8Array(values.length);
  const types = output.codes.type;
  for (let row = 0; row < codes.length; row++) {
    const value = values[row];
    if (!isFor[types[row]]) codes[row] = NOT_FOR_THIS;
    else if (value < low) codes[row] = 1;
    else if (value > high) codes[row] = 2;
    else if (value !== value) codes[row] = MISSING;
  }
  return codes;
}

/** Judges outputs by rules, and keeps what a rule said for as long as it stays as it is. */
class Judge {
  /** @param {Output} output */
  constructor(output) {
    this.output = output;
    /** @type {Map<string, {min: number|null, max: number|null, codes: Uint8Array}>} */
    this.said = new Map();
    // Copies are as the table has them: only `select` can find them anew.
    this.copies = new Set(output.facts.duplicates.map(([row]) => row));
  }

  /** @param {Rule} rule @returns {Uint8Array} */
  codes(rule) {
    const before = this.said.get(rule.column);
    if (before && before.min === rule.min && before.max === rule.max) return before.codes;
    const codes = codesOfRule(this.output, rule);
    this.said.set(rule.column, { min: rule.min, max: rule.max, codes });
    return codes;
  }

  /** @param {Rule[]} rules @returns {Verdicts} */
  judge(rules) {
    const { output } = this;
    const { facts } = output;
    const codes = rules.map((rule) => this.codes(rule));
    const groups = inStages(rules, facts.stages);
    const names = reasonNames(rules, output.words.caption_status);
    const captions = 2 + 3 * rules.length;
    const ok = output.words.caption_status.indexOf("ok");
    const failed = output.words.status.indexOf("failed");
    const transition = output.words.kind.indexOf("transition");
    const keep = output.words.review.indexOf("keep");
    const drop = output.words.review.indexOf("drop");
    const duration = numbersOf(output, "duration_s");
    const status = new Uint8Array(facts.rows);
    const first = new Int16Array(facts.rows).fill(-1);
    const only = new Int16Array(facts.rows).fill(-1);
    const lost = new Float64Array(names.length);
    const lostHours = new Float64Array(names.length);
    const alone = new Float64Array(names.length);
    let accepted = 0;
    let failures = 0;
    let seconds = 0;
    let acceptedSeconds = 0;
    for (let row = 0; row < facts.rows; row++) {
      const length = duration[row] || 0;
      seconds += length;
      if (output.codes.status[row] === failed) {
        status[row] = FAILED;
        failures++;
        continue;
      }
      const isTransition = transition >= 0 && output.codes.kind[row] === transition;
      const review = output.codes.review[row];
      if (review >= 0 && review === keep && !isTransition) {
        status[row] = ACCEPTED;
        accepted++;
        acceptedSeconds += length;
        continue;
      }
      let count = 0;
      let unknown = 0;
      let bound = Infinity;
      let missing = Infinity;
      if (isTransition) {
        bound = 0;
        count = 1;
      }
      if (review >= 0 && review === drop) {
        bound = Math.min(bound, 1);
        count++;
      }
      for (let stage = 0; stage < groups.length; stage++) {
        const unmeasured = stage > 0 && count > 0 && !facts.score_rejected;
        for (const i of groups[stage]) {
          const code = codes[i][row];
          if (code === 0 && !unmeasured) continue;
          if (code === NOT_FOR_THIS) continue;
          count++;
          if (unmeasured) unknown++;
          if (unmeasured || code === MISSING) missing = Math.min(missing, 4 + 3 * i);
          else bound = Math.min(bound, 1 + code + 3 * i);
        }
      }
      let reason = bound < Infinity ? bound : missing;
      if (count === 0 && this.copies.has(row)) {
        reason = names.length - 1;
        count = 1;
      }
      const caption = output.codes.caption_status[row];
      if (count === 0 && caption >= 0 && caption !== ok) {
        reason = captions + caption;
        count = 1;
      }
      if (count === 0) {
        status[row] = ACCEPTED;
        accepted++;
        acceptedSeconds += length;
        continue;
      }
      first[row] = reason;
      lost[reason]++;
      lostHours[reason] += length / 3600;
      if (count - unknown === 1) {
        alone[reason]++;
        only[row] = reason;
      }
    }
    return {
      status,
      first,
      names,
      lost,
      lostHours,
      alone,
      only,
      accepted,
      rejected: facts.rows - accepted - failures,
      failed: failures,
      hours: seconds / 3600,
      acceptedHours: acceptedSeconds / 3600,
      rules,
    };
  }

  /** Every reason of one row. @param {Rule[]} rules @param {number} row @returns {string[]} */
  reasons(rules, row) {
    const { output } = this;
    if (wordOf(output, "status", row) === "failed") return [];
    const isTransition = wordOf(output, "kind", row) === "transition";
    const review = wordOf(output, "review", row);
    if (review === "keep" && !isTransition) return [];
    /** @type {[number, string][]} */
    const bounds = isTransition ? [[-2, "shot:transition"]] : [];
    if (review === "drop") bounds.push([-1, DROPPED]);
    /** @type {[number, string][]} */
    const missing = [];
    inStages(rules, output.facts.stages).forEach((group, stage) => {
      const unmeasured = stage > 0 && bounds.length + missing.length > 0 && !output.facts.score_rejected;
      for (const i of group) {
        const code = this.codes(rules[i])[row];
        if ((code === 0 && !unmeasured) || code === NOT_FOR_THIS) continue;
        if (unmeasured || code === MISSING) missing.push([i, `${rules[i].column}:missing`]);
        else bounds.push([i, `${rules[i].column}:${code === 1 ? "low" : "high"}`]);
      }
    });
    const caption = wordOf(output, "caption_status", row);
    const said = [bounds, missing].flatMap((some) => some.sort((a, b) => a[0] - b[0]).map(([, reason]) => reason));
    if (!said.length && this.copies.has(row)) return [COPY];
    return said.length || caption === null || caption === "ok" ? said : [`caption:${caption}`];
  }
}

/** Positions of rules: those on columns known before any pool, then by pool. @param {Rule[]} rules @param {string[][]} stages @returns {number[][]} */
function inStages(rules, stages) {
  const stageOf = new Map(stages.flatMap((columns, stage) => columns.map((column) => /** @type {[string, number]} */ ([column, stage + 1]))));
  /** @type {number[][]} */
  const groups = [[], ...stages.map(() => [])];
  rules.forEach((rule, i) => groups[stageOf.get(rule.column) ?? 0].push(i));
  return groups;
}

/** @param {Rule[]} rules @param {string[]} captionWords @returns {string[]} */
function reasonNames(rules, captionWords) {
  const ofRules = rules.flatMap((rule) => ["low", "high", "missing"].map((word) => `${rule.column}:${word}`));
  return ["shot:transition", DROPPED, ...ofRules, ...captionWords.map((word) => `caption:${word}`), COPY];
}

/**
 * The words that turn the first rules into the second, for `select`.
 * @param {Rule[]} before @param {Rule[]} after @returns {string[]}
 */
function overrides(before, after) {
  /** @type {string[]} */
  const words = [];
  const had = new Map(before.map((rule) => [rule.column, rule]));
  const has = new Set(after.map((rule) => rule.column));
  for (const { column } of before) if (!has.has(column)) words.push(`rules.${column}=false`);
  for (const rule of after) {
    const old = had.get(rule.column) ?? { min: null, max: null };
    const changed = old.min !== rule.min || old.max !== rule.max;
    // The length of clips has a rule even where the recipe names none: both sides are spelled out.
    const whole = rule.column === "duration_s" && changed;
    if (rule.min !== old.min || (whole && rule.min !== null)) words.push(`rules.${rule.column}.min=${inYaml(rule.min)}`);
    if (rule.max !== old.max || (whole && rule.max !== null)) words.push(`rules.${rule.column}.max=${inYaml(rule.max)}`);
  }
  return words;
}

/** YAML takes `1e-7` for a text. @param {number|null} value @returns {string} */
function inYaml(value) {
  const text = String(value);
  return /^-?\d+e/.test(text) ? text.replace("e", ".0e") : text;
}

/** @param {string} word @returns {string} */
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
