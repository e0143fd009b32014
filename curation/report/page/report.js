// @ts-check
"use strict";
/* The page of one output: thresholds move, everything follows. */

/** @param {string} id @returns {HTMLElement} */
const byId = (id) => part(document, `#${id}`);

/** @param {number} n @returns {string} */
const grouped = (n) => n.toLocaleString("en-US");

/** @param {number} hours @returns {string} */
const inHours = (hours) => (hours < 1 ? `${(hours * 60).toFixed(1)} min` : `${hours.toFixed(1)} h`);

/** @param {number} share @returns {string} */
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)} %`;

class Report {
  /** @param {Output} output */
  constructor(output) {
    this.output = output;
    this.judge = new Judge(output);
    /** @type {Rule[]} */
    this.rules = output.facts.rules.map((rule) => ({ ...rule }));
    this.original = this.judge.judge(output.facts.rules);
    this.verdicts = this.original;
    this.cards = new Cards(output, this.judge);
    /** @type {Map<string, Histogram>} */
    this.histograms = new Map();
    /** @type {Set<string>} */
    this.inSight = new Set();
    this.scatter = new Scatter(output, byId("scatter-plot"), (row) => this.cards.open(row, this.verdicts));
    /** @type {number[]} */
    this.found = [];
    this.isDue = false;
  }

  start() {
    this.layScores();
    this.layGalleries();
    this.layScatter();
    this.layCaptions();
    byId("reset").addEventListener("click", () => this.reset());
    for (const what of ["command", "yaml"]) byId(`copy-${what}`).addEventListener("click", () => this.copy(what));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    addEventListener("beforeprint", () => this.sightEverything());
    this.refresh();
  }

  /** @param {string} column @returns {Rule|null} */
  rule(column) {
    return this.rules.find((rule) => rule.column === column) ?? null;
  }

  /** @param {string} column @param {"min"|"max"} side @param {number|null} value */
  move(column, side, value) {
    const was = this.rule(column) ?? { column, min: null, max: null };
    // No rule lets nothing pass: a threshold stops at the other one.
    if (value !== null && side === "min" && was.max !== null) value = Math.min(value, was.max);
    if (value !== null && side === "max" && was.min !== null) value = Math.max(value, was.min);
    if (was[side] === value) return;
    const rule = { ...was, [side]: value };
    // The length of clips always has a rule.
    if (rule.min === null && rule.max === null && column === "duration_s") rule.min = 0;
    const isOff = rule.min === null && rule.max === null;
    const order = this.output.facts.rules.map((some) => some.column);
    const others = this.rules.filter((some) => some.column !== column);
    const added = this.rules.some((some) => some.column === column) ? this.rules.map((some) => (some.column === column ? rule : some)) : [...others, rule];
    const place = (/** @type {Rule} */ some) => (order.includes(some.column) ? order.indexOf(some.column) : order.length);
    this.rules = isOff ? others : added.map((some, i) => ({ some, i })).sort((a, b) => place(a.some) - place(b.some) || a.i - b.i).map(({ some }) => some);
    this.view(`border:${column}`);
    this.schedule();
  }

  reset() {
    this.rules = this.output.facts.rules.map((rule) => ({ ...rule }));
    this.schedule();
  }

  schedule() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.refresh();
    });
  }

  refresh() {
    this.verdicts = this.judge.judge(this.rules);
    this.cards.rules = this.rules;
    this.showFunnel();
    for (const name of this.inSight) this.showScore(name);
    this.showChange();
    this.showGalleries();
    document.documentElement.dataset.accepted = String(this.verdicts.accepted);
  }

  redraw() {
    for (const histogram of this.histograms.values()) histogram.redraw();
    this.scatter.plot?.redraw(false, true);
  }

  showFunnel() {
    const { verdicts } = this;
    const { rows } = this.output.facts;
    byId("total-accepted").textContent = grouped(verdicts.accepted);
    byId("share-accepted").textContent = rows ? `${percent(verdicts.accepted / rows)} of all, ${inHours(verdicts.acceptedHours)}` : "";
    byId("total-rejected").textContent = grouped(verdicts.rejected);
    byId("total-failed").textContent = grouped(verdicts.failed);
    const body = byId("funnel-rows");
    let left = rows - verdicts.failed;
    let hours = verdicts.hours;
    /** @type {HTMLElement[]} */
    const lines = [this.funnelLine("sources", null, null, null, this.output.words.source_path.length, null)];
    if (verdicts.failed) lines.push(this.funnelLine("failed", verdicts.failed, null, null, null, null, "failed"));
    lines.push(this.funnelLine("clips and images", null, null, null, left, hours));
    this.reasonsInOrder().forEach((reason) => {
      const lost = verdicts.lost[reason];
      if (!lost) return;
      left -= lost;
      hours -= verdicts.lostHours[reason];
      lines.push(this.funnelLine(verdicts.names[reason], lost, verdicts.alone[reason], verdicts.lostHours[reason], left, hours));
    });
    lines.push(this.funnelLine("accepted", null, null, null, verdicts.accepted, verdicts.acceptedHours, "accepted"));
    body.replaceChildren(...lines);
  }

  /** Positions of reasons as they are tried: bounds first, then what is missing, then captions. @returns {number[]} */
  reasonsInOrder() {
    const { names } = this.verdicts;
    const late = (/** @type {string} */ name) => (name.startsWith("caption:") ? 3 : name === COPY ? 2 : name.endsWith(":missing") ? 1 : 0);
    return names.map((_, i) => i).sort((a, b) => late(names[a]) - late(names[b]) || a - b);
  }

  /**
   * @param {string} name @param {number|null} lost @param {number|null} alone @param {number|null} lostHours
   * @param {number|null} left @param {number|null} hours @param {string} kind
   */
  funnelLine(name, lost, alone, lostHours, left, hours, kind = "") {
    const line = copyOf("funnel-line");
    const { rows } = this.output.facts;
    line.dataset.reason = name;
    if (kind) line.classList.add(kind);
    if (lost !== null) line.dataset.lost = String(lost);
    part(line, "th").textContent = name;
    part(line, ".lost").textContent = lost === null ? "" : `−${grouped(lost)}`;
    part(line, ".share").textContent = lost === null || !rows ? "" : percent(lost / rows);
    part(line, ".alone").textContent = alone ? grouped(alone) : "";
    part(line, ".hours").textContent = lostHours === null ? "" : inHours(lostHours);
    part(line, ".left").textContent = left === null ? "" : grouped(left);
    part(line, ".left-hours").textContent = hours === null ? "" : inHours(hours);
    if (hours !== null && left !== null) part(line, ".bar").style.width = `${rows ? (100 * left) / rows : 0}%`;
    return line;
  }

  layScores() {
    const watcher = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          const name = /** @type {HTMLElement} */ (target).dataset.column ?? "";
          if (isIntersecting) {
            this.inSight.add(name);
            this.showScore(name);
          } else this.inSight.delete(name);
        }
      },
      { rootMargin: "200px" },
    );
    for (const column of this.output.facts.columns.filter((some) => some.is_plotted)) {
      const figure = copyOf("score");
      figure.dataset.column = column.name;
      part(figure, "h3").textContent = column.name;
      part(figure, ".unit").textContent = column.unit;
      part(figure, ".meaning").textContent = column.meaning;
      for (const side of /** @type {("min"|"max")[]} */ (["min", "max"])) {
        const input = /** @type {HTMLInputElement} */ (part(figure, `.${side} input`));
        input.setAttribute("aria-label", `${side} of ${column.name}`);
        input.addEventListener("change", () => {
          this.move(column.name, side, input.value === "" ? null : Number(input.value));
          const rule = this.rule(column.name);
          input.value = rule && rule[side] !== null ? String(rule[side]) : "";
          this.schedule();
        });
        if (!column.is_judgeable) part(figure, ".bounds").hidden = true;
      }
      part(figure, ".look").addEventListener("click", () => {
        this.view(`border:${column.name}`);
        this.showGalleries();
        byId("clips").scrollIntoView({ behavior: "smooth" });
      });
      byId("score-list").append(figure);
      watcher.observe(figure);
    }
  }

  sightEverything() {
    for (const column of this.output.facts.columns.filter((some) => some.is_plotted)) {
      this.inSight.add(column.name);
      this.showScore(column.name);
    }
  }

  /** @param {string} name */
  showScore(name) {
    const column = this.output.facts.columns.find((some) => some.name === name);
    const figure = part(byId("score-list"), `[data-column="${name}"]`);
    if (!column) return;
    const rule = this.rule(name);
    let histogram = this.histograms.get(name);
    if (!histogram) {
      histogram = new Histogram(this.output, column, rule, part(figure, ".plot"), (...moved) => this.move(...moved));
      this.histograms.set(name, histogram);
    }
    histogram.show(this.verdicts.status, rule);
    for (const side of /** @type {("min"|"max")[]} */ (["min", "max"])) {
      const input = /** @type {HTMLInputElement} */ (part(figure, `.${side} input`));
      const value = rule ? rule[side] : null;
      // What is being typed stays.
      if (document.activeElement !== input) input.value = value === null ? "" : String(value);
    }
    const rejected = ["low", "high", "missing"].map((word) => /** @type {[string, number]} */ ([word, this.lostTo(name, word)])).filter(([, count]) => count);
    part(figure, ".rejects").textContent = rule ? `rejects ${rejected.map(([word, count]) => `${grouped(count)} ${word}`).join(", ") || "none"}` : "no rule";
    const missing = histogram.bins.places.reduce((count, place) => count + (place === NO_BIN ? 1 : 0), 0);
    part(figure, ".missing").textContent = missing ? `${grouped(missing)} without value` : "";
  }

  /** Rows that a rule rejects, first or not. @param {string} column @param {string} word @returns {number} */
  lostTo(column, word) {
    const rule = this.rule(column);
    if (!rule) return 0;
    const code = { low: 1, high: 2, missing: 3 }[word];
    let count = 0;
    const codes = this.judge.codes(rule);
    for (let row = 0; row < codes.length; row++) if (codes[row] === code && this.verdicts.status[row] !== FAILED) count++;
    return count;
  }

  showChange() {
    const words = overrides(this.output.facts.rules, this.rules);
    const change = this.verdicts.accepted - this.original.accepted;
    byId("change").hidden = !words.length;
    byId("change-words").textContent = `${grouped(this.original.accepted)} → ${grouped(this.verdicts.accepted)} accepted (${change >= 0 ? "+" : "−"}${grouped(Math.abs(change))})`;
    byId("command").textContent = this.command();
    // The bar hides nothing: the page ends above it.
    document.body.style.paddingBottom = words.length ? `${byId("change").offsetHeight + 32}px` : "";
    document.documentElement.style.scrollPaddingBottom = words.length ? `${byId("change").offsetHeight + 16}px` : "";
  }

  /** @returns {string} */
  command() {
    const words = overrides(this.output.facts.rules, this.rules);
    return ["python run_pipeline.py select", quoted(this.output.facts.out), ...words.map(quoted)].join(" ");
  }

  /** @returns {string} */
  yaml() {
    const sides = (/** @type {Rule} */ rule) => [rule.min !== null ? `min: ${inYaml(rule.min)}` : "", rule.max !== null ? `max: ${inYaml(rule.max)}` : ""].filter(Boolean).join(", ");
    return `rules:\n${this.rules.map((rule) => `  ${rule.column}: {${sides(rule)}}\n`).join("")}`;
  }

  /** @param {string} what */
  async copy(what) {
    const text = what === "yaml" ? this.yaml() : this.command();
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A page opened from disk may have no clipboard: an older way is left.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    byId("copied").textContent = what === "yaml" ? "YAML copied" : "command copied";
    setTimeout(() => (byId("copied").textContent = ""), 2000);
  }

  layGalleries() {
    const select = /** @type {HTMLSelectElement} */ (byId("view"));
    const { facts } = this.output;
    const ruled = facts.rules.map((rule) => rule.column);
    const plotted = facts.columns.filter((column) => column.is_plotted).map((column) => column.name);
    const judgeable = facts.columns.filter((column) => column.is_plotted && column.is_judgeable).map((column) => column.name);
    /** @type {[string, [string, string][]][]} */
    const groups = [
      ["", [["random:", "by chance"], ["changed:", "changed by the thresholds"], ["failed:", "failed"], ["search:", "found by the search"], ...(facts.duplicates.length ? [/** @type {[string, string]} */ (["duplicates:", "duplicates"])] : [])]],
      ["next to a threshold", [...new Set([...ruled, ...judgeable])].map((name) => [`border:${name}`, name])],
      ["highest and lowest", plotted.map((name) => [`ends:${name}`, name])],
      ["rejected for", this.original.names.filter((_, i) => this.original.lost[i]).map((name) => [`reason:${name}`, name])],
    ];
    for (const [label, views] of groups) {
      const place = label ? document.createElement("optgroup") : select;
      if (place instanceof HTMLOptGroupElement) {
        place.label = label;
        select.append(place);
      }
      for (const [value, text] of views) place.append(new Option(text, value));
    }
    select.addEventListener("change", () => this.showGalleries());
    const box = /** @type {HTMLInputElement} */ (byId("search"));
    box.addEventListener("input", () => this.find(box.value));
  }

  /** @param {string} question */
  find(question) {
    this.found = search(this.output, question);
    byId("found").textContent = question.trim() ? `${grouped(this.found.length)} found` : "";
    this.view(question.trim() ? "search:" : "random:");
    this.showGalleries();
  }

  /** @param {string} name */
  view(name) {
    /** @type {HTMLSelectElement} */ (byId("view")).value = name;
  }

  showGalleries() {
    const view = /** @type {HTMLSelectElement} */ (byId("view")).value;
    const shows = view === "failed:" || view === "search:" || view === "duplicates:" ? () => true : (/** @type {number} */ row) => this.cards.hasPictures(row);
    const panes = panesOf(this.output, view, this.verdicts, this.original, shows, this.found);
    const marked = /^(border|ends):/.test(view) ? view.slice(view.indexOf(":") + 1) : null;
    /** @type {Set<HTMLImageElement>} */
    const shownNow = new Set();
    byId("panes").replaceChildren(
      ...panes.map(({ title, rows }) => {
        const pane = copyOf("pane");
        part(pane, "h3").textContent = title;
        part(pane, ".cards").append(...rows.map((row) => this.cards.card(row, this.verdicts, marked, shownNow)));
        if (!rows.length) part(pane, ".cards").textContent = "none";
        return pane;
      }),
    );
    byId("pictures-note").textContent = this.cards.isBeside ? "" : `Pictures of ${grouped(this.output.facts.pictured.length)} clips travel in this page; beside the folder previews/ it shows all.`;
  }

  layScatter() {
    const names = this.output.facts.columns.filter((column) => column.is_plotted).map((column) => column.name);
    const [x, y] = ["x", "y"].map((axis) => /** @type {HTMLSelectElement} */ (byId(`scatter-${axis}`)));
    for (const select of [x, y]) for (const name of names) select.append(new Option(name, name));
    if (names.includes("motion")) x.value = "motion";
    y.value = names.includes("sharpness") ? "sharpness" : names[names.length - 1];
    const show = () => {
      const count = this.scatter.show(x.value, y.value, this.verdicts.status);
      const { rows } = this.output.facts;
      byId("scatter-note").textContent = rows > MOST_POINTS ? `${grouped(count)} clips of ${grouped(rows)}, evenly taken` : `${grouped(count)} clips with both scores`;
    };
    for (const select of [x, y]) select.addEventListener("change", show);
    byId("scatter").addEventListener("toggle", () => /** @type {HTMLDetailsElement} */ (byId("scatter")).open && show());
  }

  layCaptions() {
    const lengths = captionLengths(this.output);
    const captioned = lengths.reduce((count, length) => count + (length === length ? 1 : 0), 0);
    byId("caption-count").textContent = `${grouped(captioned)} captions${this.output.facts.caption_rows ? " (a sample: all of them would not fit into the page)" : ""}`;
    byId("caption-details").hidden = !captioned;
    if (!captioned) return;
    const [lo, hi] = rangeOf(lengths, []);
    const bins = binned(lengths, [lo, hi], true);
    const [all] = counted(bins, this.original.status);
    bars(byId("caption-lengths"), bins, [all], ["--accepted"], 130);
    byId("caption-flags").replaceChildren(...captionFlags(this.output).map(([word, count]) => listed(word, count)));
    byId("caption-phrases").replaceChildren(
      ...this.output.facts.phrases.map(([phrase, count]) => {
        const item = listed(phrase, count);
        item.tabIndex = 0;
        item.setAttribute("role", "button");
        const look = () => {
          /** @type {HTMLInputElement} */ (byId("search")).value = phrase;
          this.find(phrase);
          byId("clips").scrollIntoView({ behavior: "smooth" });
        };
        item.addEventListener("click", look);
        item.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          look();
        });
        return item;
      }),
    );
  }
}

/** @param {string} text @param {number} count @returns {HTMLElement} */
function listed(text, count) {
  const item = document.createElement("li");
  const number = document.createElement("b");
  number.textContent = grouped(count);
  item.append(number, ` ${text}`);
  return item;
}

async function main() {
  const output = await unpackOutput("output");
  const report = new Report(output);
  report.start();
  document.documentElement.dataset.ready = "yes";
  await report.cards.look();
  if (report.cards.isBeside) report.showGalleries();
  document.documentElement.dataset.looked = "yes";
}

main().catch((error) => {
  document.documentElement.dataset.ready = "no";
  byId("trouble").hidden = false;
  byId("trouble").textContent = `This page cannot show its data: ${error.message}. It needs a browser of 2023 or later.`;
  throw error;
});
