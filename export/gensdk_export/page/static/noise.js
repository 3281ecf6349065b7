// gensdk's noise, number for number: Philox4x64-10 (Salmon et al. 2011) keyed by (seed, place), one stream a step.
// The same as gensdk_runtime/noise.py, which tells why. 64-bit words are pairs of 32 bits: BigInt is too slow.

const TWO_32 = 4294967296;
const MASK_64 = (1n << 64n) - 1n;
export const LABEL_STREAM = MASK_64;

// The upper 32 bits of a product of two 32-bit numbers, in pieces of 16 bits.
function upper(a, b) {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const low = a1 * b0 + ((a0 * b0) >>> 16);
  const high = a0 * b1 + (low & 0xffff);
  return (a1 * b1 + (low >>> 16) + (high >>> 16)) >>> 0;
}

// The 128 bits of a product of two 64-bit numbers, into out[0..3], the lowest first.
function multiply(aHigh, aLow, bHigh, bLow, out) {
  const one = upper(aLow, bLow) + (Math.imul(aLow, bHigh) >>> 0) + (Math.imul(aHigh, bLow) >>> 0);
  const two = upper(aLow, bHigh) + upper(aHigh, bLow) + (Math.imul(aHigh, bHigh) >>> 0) + Math.floor(one / TWO_32);
  out[0] = Math.imul(aLow, bLow);
  out[1] = one;
  out[2] = two;
  out[3] = upper(aHigh, bHigh) + Math.floor(two / TWO_32);
}

function halves(word) {
  return [Number((word >> 32n) & 0xffffffffn), Number(word & 0xffffffffn)];
}

// Calls use(high, low) for each of `count` 64-bit words.
function words(seed, place, stream, count, use) {
  const key = [...halves(BigInt(seed)), ...halves(BigInt(place))];
  const [streamHigh, streamLow] = halves(BigInt(stream) & MASK_64);
  const first = new Uint32Array(4), second = new Uint32Array(4);
  for (let block = 1, made = 0; made < count; block++) {
    let [k0High, k0Low, k1High, k1Low] = key;
    let c0High = Math.floor(block / TWO_32), c0Low = block >>> 0, c1High = 0, c1Low = 0;
    let c2High = 0, c2Low = 0, c3High = streamHigh, c3Low = streamLow;
    for (let round = 0; round < 10; round++) {
      multiply(0xd2e7470e, 0xe14c6c93, c0High, c0Low, first);
      multiply(0xca5a8263, 0x95121157, c2High, c2Low, second);
      c0High = (second[3] ^ c1High ^ k0High) >>> 0;
      c0Low = (second[2] ^ c1Low ^ k0Low) >>> 0;
      c1High = second[1];
      c1Low = second[0];
      c2High = (first[3] ^ c3High ^ k1High) >>> 0;
      c2Low = (first[2] ^ c3Low ^ k1Low) >>> 0;
      c3High = first[1];
      c3Low = first[0];
      const sum0 = k0Low + 0x7f4a7c15, sum1 = k1Low + 0x84caa73b;
      k0Low = sum0 >>> 0;
      k0High = (k0High + 0x9e3779b9 + (sum0 >= TWO_32 ? 1 : 0)) >>> 0;
      k1Low = sum1 >>> 0;
      k1High = (k1High + 0xbb67ae85 + (sum1 >= TWO_32 ? 1 : 0)) >>> 0;
    }
    if (made++ < count) use(c0High, c0Low);
    if (made++ < count) use(c1High, c1Low);
    if (made++ < count) use(c2High, c2Low);
    if (made++ < count) use(c3High, c3Low);
  }
}

// Fills `out` with numbers on [0, 1): the upper 24 of each 32 bits.
export function uniform(seed, place, stream, out) {
  let at = 0;
  words(seed, place, stream, Math.ceil(out.length / 2), (high, low) => {
    out[at++] = (high >>> 8) / 16777216;
    if (at < out.length) out[at++] = (low >>> 8) / 16777216;
  });
}

// Fills `out` with standard normal numbers (Box & Muller 1958), computed in 64 bits and rounded to 32.
export function normal(seed, place, stream, out) {
  let at = 0;
  words(seed, place, stream, Math.ceil(out.length / 2), (high, low) => {
    const radius = Math.sqrt(-2 * Math.log((high + 1) / TWO_32));
    const angle = low * ((2 * Math.PI) / TWO_32);
    out[at++] = radius * Math.cos(angle);
    if (at < out.length) out[at++] = radius * Math.sin(angle);
  });
}
