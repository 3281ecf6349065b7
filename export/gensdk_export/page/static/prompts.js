// Texts that samples are made from, as the model takes them: as gensdk_runtime/conditions/prompt.py does it.

import { NAMED, Vocabulary } from "./vocabulary.js";

export class Prompts {
  #facts;
  #vocabulary;

  // `facts`: what page.json says of prompts.
  constructor(facts) {
    this.#facts = facts;
    this.#vocabulary = new Vocabulary(facts.vocabulary, facts.characters);
  }

  // {rows: the tokens of each of `count` samples, notes: what Python would warn of}. `given`: a text for all samples, a
  // list with one for each, or nothing; `kind`: what is asked for, prompt or negative_prompt. RangeError for others.
  rows(given, count, kind = "prompt") {
    const facts = this.#facts, notes = [];
    if (given === null || given === undefined) {
      if (!facts.empty) {
        const model = this.#vocabulary.quoted(facts.model);
        throw new RangeError(`model ${model} is made from a text: pass prompt, one for all samples or one for each`);
      }
      return { rows: Array(count).fill(this.#around([])), notes };
    }
    if (typeof given === "string") {
      const one = this.#encoded(given, `the ${kind}`, notes);
      this.#tellUnknown([one], notes);
      return { rows: Array(count).fill(this.#around(one.tokens)), notes };
    }
    if (!Array.isArray(given)) {
      throw new RangeError(`expected the ${kind} as a string or a list of them, got ${typeof given}`);
    }
    if (given.length !== count) {
      throw new RangeError(`expected one ${kind} for each of the ${count} samples, got ${given.length}`);
    }
    const known = new Map();
    const each = given.map((text, number) => {
      if (!known.has(text)) known.set(text, this.#encoded(text, `${kind} ${number}`, notes));
      return known.get(text);
    });
    this.#tellUnknown(each, notes);
    return { rows: each.map(({ tokens }) => this.#around(tokens)), notes };
  }

  #encoded(text, what, notes) {
    const { own_length: most, over_long: overLong, empty } = this.#facts;
    let { tokens, unknown } = this.#vocabulary.encode(text);
    if (overLong === "cut" && tokens.length > most) {
      notes.push(`${what} has ${tokens.length} tokens, the model reads the first ${most} of them`);
      tokens = tokens.slice(0, most);
    }
    if (!tokens.length && !empty) throw new RangeError(`${what} is empty; expected 1 to ${most} tokens`);
    if (tokens.length > most) {
      throw new RangeError(`${what} has ${tokens.length} tokens, the model takes at most ${most}; shorten it`);
    }
    return { tokens, unknown };
  }

  #tellUnknown(each, notes) {
    const unknown = each.flatMap((one) => one.unknown);
    if (!unknown.length) return;
    const count = each.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const more = new Set(unknown).size > NAMED ? ", ..." : "";
    const named = this.#vocabulary.named(unknown);
    notes.push(`${unknown.length} of ${count} tokens are unknown to the model (${named}${more}); they all count as one`);
  }

  #around(tokens) {
    const { begin, end, rest, length } = this.#facts;
    const row = [...(begin === null ? [] : [begin]), ...tokens, ...(end === null ? [] : [end])];
    return [...row, ...Array(length - row.length).fill(rest)];
  }
}
