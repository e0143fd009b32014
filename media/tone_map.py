"""HDR pictures (PQ and HLG of ITU-R BT.2100) as SDR of BT.709: one formula for clips, previews and scores.

1. Display light of the source: PQ by its EOTF; HLG by its inverse OETF and the OOTF of a 1000 cd/m2 display, gamma 1.2.
2. `REFERENCE_WHITE_NITS`, the HDR reference white of ITU-R BT.2408, is SDR white, so that SDR content put into HDR as
   BT.2408 says comes back as it was, and an HDR and an SDR version of one scene are equally bright. What is above
   `KNEE` of it is compressed, not clipped, by a shoulder in the manner of Reinhard et al. ("Photographic tone
   reproduction", SIGGRAPH 2002): k + (1 - k) s u / (1 + (s - 1) u), where u goes from 0 at the knee k to 1 at the
   source's peak p and s = (p - k) / (1 - k) keeps the slope. (The EETF of BT.2390 would darken everything from
   90 cd/m2 on, reference white by a tenth.) It is worked out for the largest of R, G and B, and the others are scaled
   with it, so that hues stay.
3. BT.2020 (or P3) primaries to BT.709, ITU-R BT.2087; colours outside are clipped.
4. The inverse EOTF of an SDR display, ITU-R BT.1886: gamma 2.4.

The peak is the smaller of the stated content light level (MaxCLL) and the mastering display's, else 1000 cd/m2.
"""

from functools import lru_cache

import cv2
import numpy as np

from media.colour import HLG

REFERENCE_WHITE_NITS = 203.0
USUAL_PEAK_NITS = 1000.0
SDR_GAMMA = 2.4
KNEE = 0.8
"""share of the SDR white from which on light is compressed"""
HLG_WHITE_NITS, HLG_GAMMA = 1000.0, 1.2
WHITE_CODE = 255 << 8
"""of 16 bits, as swscale converts YUV to RGB"""
CUBE_SIDE = 33
_STEPS = 4096  # of the tables: 12 bits, as fine as PQ is ever stored

_TO_BT709 = {
    9: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    11: ((1.157517, -0.154963, -0.002555), (-0.041501, 1.045563, -0.004063), (-0.018048, -0.078579, 1.096627)),
    12: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
"""linear RGB to BT.709 by AVCOL_PRI: BT.2020, DCI-P3, Display P3"""
_BT2020_LUMA = np.array([[0.2627, 0.6780, 0.0593]], np.float32)


def pq_to_nits(share: np.ndarray) -> np.ndarray:
    """Return cd/m2 of PQ codes 0..1 (SMPTE ST 2084, BT.2100 table 4)."""
    power = np.power(np.clip(share, 0, 1), 32 / 2523)
    return 10000 * np.power(np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power), 16384 / 2610)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """Return PQ codes 0..1 of cd/m2."""
    power = np.power(np.clip(nits, 0, 10000) / 10000, 2610 / 16384)
    return np.power((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power), 2523 / 32)


def hlg_to_scene(share: np.ndarray) -> np.ndarray:
    """Return scene light 0..1 of HLG codes 0..1 (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(share <= 0.5, share**2 / 3, (np.exp((share - c) / a) + b) / 12)


def compressed(nits: np.ndarray, peak_nits: float) -> np.ndarray:
    """Return display light relative to the SDR white, 0..1, of cd/m2 up to a peak: step 2 above."""
    white = nits / REFERENCE_WHITE_NITS
    peak = peak_nits / REFERENCE_WHITE_NITS
    if peak <= 1:
        return np.minimum(white, 1.0)
    slope = (peak - KNEE) / (1 - KNEE)
    u = np.clip((white - KNEE) / (peak - KNEE), 0, 1)
    return np.where(white <= KNEE, white, KNEE + (1 - KNEE) * slope * u / (1 + (slope - 1) * u))


def to_sdr(codes: np.ndarray, transfer: int, primaries: int, peak_nits: float | None) -> np.ndarray:
    """Convert an HDR picture to SDR.

    Args:
        codes: uint16 (H, W, 3), R'G'B', 0 to `WHITE_CODE`.
        transfer: `colour.PQ` or `colour.HLG`.
        primaries: AVCOL_PRI of the picture.
        peak_nits: brightest light that the source states; null: not stated.

    Returns:
        uint8 (H, W, 3), R'G'B' of BT.709.
    """
    light = _light(codes, transfer, primaries, peak_nits)
    index = cv2.multiply(cv2.sqrt(light, dst=light), float(_STEPS - 1)).astype(np.uint16)
    return np.take(_sdr_table(), index, mode="clip")


@lru_cache(2)
def cube(transfer: int, primaries: int, peak_nits: float | None) -> bytes:
    """Return `to_sdr` as a table for FFmpeg's lut3d, in the text format of .cube files: for full-size pictures."""
    index = np.arange(CUBE_SIDE**3)
    places = np.stack([index % CUBE_SIDE, index // CUBE_SIDE % CUBE_SIDE, index // CUBE_SIDE**2], axis=-1)[None]
    codes = np.rint(places * (65535 / (CUBE_SIDE - 1))).astype(np.uint16)
    shown = np.power(_light(codes, transfer, primaries, peak_nits)[0], 1 / SDR_GAMMA)
    shown = np.rint(shown * 9999).astype(np.int64)
    lines = ("0.%04d 0.%04d 0.%04d\n" * len(shown)) % tuple(shown.ravel().tolist())
    return f"LUT_3D_SIZE {CUBE_SIDE}\n{lines}".encode()


def _light(codes: np.ndarray, transfer: int, primaries: int, peak_nits: float | None) -> np.ndarray:
    """Return the light of an SDR display, linear, float32 (H, W, 3), 0..1."""
    peak = float(peak_nits or USUAL_PEAK_NITS)
    if transfer == HLG:
        light = np.take(_hlg_table(), codes >> 4, mode="clip")
        # The OOTF, then the compression: both are factors by which a pixel's three values are scaled.
        gain = cv2.pow(cv2.max(cv2.transform(light, _BT2020_LUMA), 1e-6), HLG_GAMMA - 1)
        brightest = cv2.multiply(gain, _largest(light))
        index = (cv2.sqrt(cv2.min(brightest, 1.0)) * np.float32(_STEPS - 1)).astype(np.uint16)
        compression = np.take(_hlg_gain_table(peak), index, mode="clip")
        gain = cv2.multiply(gain, compression, scale=HLG_WHITE_NITS / REFERENCE_WHITE_NITS)
    else:
        index = codes >> 4
        light = np.take(_pq_table(), index, mode="clip")
        gain = np.take(_pq_gain_table(peak), _largest(index), mode="clip")
    light = cv2.multiply(light, cv2.merge([gain, gain, gain]))
    matrix = _TO_BT709.get(primaries)
    if matrix is not None:
        light = cv2.transform(light, np.array(matrix, np.float32))
    return np.clip(light, 0, 1, out=light)


def _largest(pixels: np.ndarray) -> np.ndarray:
    """Return the largest of three channels, (H, W)."""
    first, second, third = cv2.split(pixels)
    return np.asarray(cv2.max(cv2.max(first, second), third))


@lru_cache(4)
def _hlg_gain_table(peak_nits: float) -> np.ndarray:
    """Return the gain at each display light, 0..1 of HLG's white, by its square root."""
    nits = (np.arange(_STEPS) / (_STEPS - 1)) ** 2 * HLG_WHITE_NITS
    return _gains(nits, peak_nits)


@lru_cache(4)
def _pq_gain_table(peak_nits: float) -> np.ndarray:
    return _gains(pq_to_nits(_shares()), peak_nits)


def _gains(nits: np.ndarray, peak_nits: float) -> np.ndarray:
    return (compressed(nits, peak_nits) / np.maximum(nits / REFERENCE_WHITE_NITS, 1e-9)).astype(np.float32)


@lru_cache(1)
def _sdr_table() -> np.ndarray:
    """Return uint8 (4096,): the code of each light, by its square root."""
    light = (np.arange(_STEPS) / (_STEPS - 1)) ** 2
    return np.rint(255 * light ** (1 / SDR_GAMMA)).astype(np.uint8)


def _shares() -> np.ndarray:
    """Return the signal, 0..1, of every code without its last four bits."""
    return np.minimum(np.arange(_STEPS) * 16 / WHITE_CODE, 1.0)


@lru_cache(1)
def _pq_table() -> np.ndarray:
    return (pq_to_nits(_shares()) / REFERENCE_WHITE_NITS).astype(np.float32)


@lru_cache(1)
def _hlg_table() -> np.ndarray:
    return hlg_to_scene(_shares()).astype(np.float32)
