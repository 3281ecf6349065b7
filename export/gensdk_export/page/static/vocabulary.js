// Texts as tokens, token for token as Python has them: gensdk_runtime/text/{vocabulary,words,characters}.py.
//
// What counts as a letter, as white space or as lower case depends on the version of Unicode, and the browser may have
// another one than the Python that made the page. So page.json tells what that Python knows of each character; one
// that it does not know stands for itself, whatever the browser knows of it.

const KNOWN = 1, WORD = 2, SPACE = 4, PRINTABLE = 8;
const BREAKS = "\t\n\v\f\r";
const MAX_TEXT = 2 ** 20; // characters
export const NAMED = 5; // unknown pieces that are named

export class Vocabulary {
  #starts = [];
  #flags = [];
  #numbers = new Map();

  // `vocabulary`: as the bundle's file has it. `characters`: runs of characters of one kind from U+0000 on, their
  // number in base 36 and their flags in base 16.
  constructor(vocabulary, characters) {
    Object.assign(this, { kind: vocabulary.kind, joining: vocabulary.joining, lowerCase: vocabulary.lower_case });
    this.special = vocabulary.special;
    const special = new Set(Object.values(vocabulary.special));
    vocabulary.tokens.forEach((token, number) => {
      if (!special.has(number)) this.#numbers.set(token, number);
    });
    let start = 0;
    for (const run of characters.split(" ")) {
      const [length, flags] = run.split(":");
      this.#starts.push(start);
      this.#flags.push(parseInt(flags, 16));
      start += parseInt(length, 36);
    }
  }

  // {tokens, unknown: the pieces that the vocabulary does not know}; RangeError for what is no text, and for an
  // unknown piece where no token stands for such.
  encode(text) {
    const pieces = this.#pieces(this.#normal(checkedText(text)));
    const unknown = pieces.filter((piece) => !this.#numbers.has(piece));
    if (unknown.length && this.special.unknown === null) {
      throw new RangeError(
        `the vocabulary does not know ${this.named(unknown.slice(0, NAMED))}, and has no token for what it does not know`,
      );
    }
    return { tokens: pieces.map((piece) => this.#numbers.get(piece) ?? this.special.unknown), unknown };
  }

  // The first few of `pieces`, each once, in quotes.
  named(pieces) {
    const each = [...new Set(pieces)].slice(0, NAMED).map((piece) => this.quoted(piece));
    return each.join(", ");
  }

  // As Python's repr() has what is printable of `text`, its first 40 characters.
  quoted(text) {
    const shown = Array.from(text, (character) => (this.#is(character, PRINTABLE) ? character : escaped(character)));
    const start = [...shown.join("")].slice(0, 40).join("").replaceAll("\\", "\\\\");
    if (start.includes("'") && !start.includes('"')) return `"${start}"`;
    return `'${start.replaceAll("'", "\\'")}'`;
  }

  #is(character, flag) {
    const code = character.codePointAt(0);
    let low = 0, high = this.#starts.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle] <= code) low = middle;
      else high = middle;
    }
    return (this.#flags[low] & flag) !== 0;
  }

  // Composed (Unicode NFC), and in lower case where the vocabulary is; what Python does not know parts the text.
  #normal(text) {
    const lowered = (part) => {
      const composed = part.normalize("NFC");
      return this.lowerCase ? composed.toLowerCase().normalize("NFC") : composed;
    };
    let made = "", part = "";
    for (const character of text) {
      if (this.#is(character, KNOWN)) {
        if (/\p{Cn}/u.test(character)) {
          throw new RangeError(`this browser does not know the character ${this.quoted(character)}; use a newer one`);
        }
        part += character;
      } else {
        made += lowered(part) + character;
        part = "";
      }
    }
    return made + lowered(part);
  }

  #pieces(text) {
    if (this.kind === "characters") return [...text];
    const pieces = [];
    let word = "";
    const end = () => {
      if (word) pieces.push(word);
      word = "";
    };
    for (const character of text) {
      if (this.#is(character, SPACE)) {
        end();
      } else if (this.joining === "spaces" || this.#is(character, WORD)) {
        word += character;
      } else {
        end();
        pieces.push(character);
      }
    }
    end();
    return pieces;
  }
}

function checkedText(text) {
  if (typeof text !== "string") throw new RangeError(`expected text as a string, got ${typeof text}`);
  let count = 0;
  for (const character of text) {
    count++;
    if (character >= "\ud800" && character <= "\udfff" && character.length === 1) {
      throw new RangeError("expected text in Unicode, got half of a surrogate pair; decode its bytes as UTF-8");
    }
  }
  if (count > MAX_TEXT) throw new RangeError(`expected a text of at most ${MAX_TEXT} characters, got ${count}`);
  return text;
}

// What is not printable, written out.
function escaped(character) {
  if (BREAKS.includes(character)) return " ";
  const digits = character.codePointAt(0).toString(16);
  if (digits.length <= 2) return `\\x${digits.padStart(2, "0")}`;
  return digits.length <= 4 ? `\\u${digits.padStart(4, "0")}` : `\\U${digits.padStart(8, "0")}`;
}
