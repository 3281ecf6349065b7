/* The numbers of gensdk_runtime/noise.py on the device; noise_kernels.py says how it is compiled.

   Both kernels fill `out` [rows, count]. `keys` [rows, 2]: the seed and the position of each row. A thread draws one
   word of Philox, which gives two numbers; neighbours draw the same block of four words, and no one waits for memory.
   Functions that are declared nowhere are the compiler's own. */

typedef unsigned long long Word;

/* Word `index` of Philox4x64-10 (Salmon et al. 2011). NumPy counts before it draws: the first block has counter 1. */
__device__ static Word philox(Word index, Word stream, Word seed, Word position)
{
    Word a = index / 4 + 1, b = 0, c = 0, d = stream;
    for (int round = 0; round < 10; ++round) {
        const Word upper_a = __umul64hi(0xD2E7470EE14C6C93ULL, a), lower_a = 0xD2E7470EE14C6C93ULL * a;
        const Word upper_c = __umul64hi(0xCA5A826395121157ULL, c), lower_c = 0xCA5A826395121157ULL * c;
        a = upper_c ^ b ^ seed;
        b = lower_c;
        c = upper_a ^ d ^ position;
        d = lower_a;
        seed += 0x9E3779B97F4A7C15ULL;
        position += 0xBB67AE8584CAA73BULL;
    }
    return index & 2 ? (index & 1 ? d : c) : (index & 1 ? b : a);
}

__device__ static Word number_of_thread(void)
{
    return (Word)blockIdx.x * blockDim.x + threadIdx.x;
}

extern "C" __global__ void gensdk_uniform(const Word *keys, Word stream, Word rows, Word count, float *out)
{
    const Word words = (count + 1) / 2, row = number_of_thread() / words, index = number_of_thread() % words;
    if (row >= rows)
        return;
    const Word word = philox(index, stream, keys[2 * row], keys[2 * row + 1]);
    float *pair = out + row * count + 2 * index;
    pair[0] = (float)(unsigned int)(word >> 40) * 5.9604644775390625e-08f; /* 2^-24 */
    if (2 * index + 1 < count)
        pair[1] = (float)((unsigned int)word >> 8) * 5.9604644775390625e-08f;
}

/* Box & Muller (1958), rounded where NumPy rounds. */
extern "C" __global__ void gensdk_normal(const Word *keys, Word stream, Word rows, Word count, float *out)
{
    const Word words = (count + 1) / 2, row = number_of_thread() / words, index = number_of_thread() % words;
    if (row >= rows)
        return;
    const Word word = philox(index, stream, keys[2 * row], keys[2 * row + 1]);
    const double first = (double)(unsigned int)(word >> 32), second = (double)(unsigned int)word;
    const double radius = sqrt(log((first + 1.0) * 2.3283064365386963e-10) * -2.0); /* 2^-32 */
    double sine, cosine;
    sincos(second * 1.4629180792671596e-09, &sine, &cosine); /* 2 pi 2^-32 */
    float *pair = out + row * count + 2 * index;
    pair[0] = (float)(radius * cosine);
    if (2 * index + 1 < count)
        pair[1] = (float)(radius * sine);
}
