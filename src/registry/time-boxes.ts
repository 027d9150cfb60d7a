/**
 * The time boxes of exposures, by the time of day. A box is open from its `notBefore` on until its `notAfter`.
 * @module
 */
import type { ExposureSource } from './selector.ts';

interface Box {
  readonly fromMs: number;
  readonly toMs: number;
  isOpen: boolean;
}

/** Knows which boxes are open since they were last looked at. A record without a box is always open. */
export class TimeBoxes {
  readonly #boxes = new Map<ExposureSource, Box>();
  #nextMs = Number.POSITIVE_INFINITY;

  get size(): number {
    return this.#boxes.size;
  }

  /** The time of day at which the next box begins or ends, in ms since 1970; or earlier, but not later. */
  get nextMs(): number {
    return this.#nextMs;
  }

  add(source: ExposureSource, nowMs: number): void {
    const { notBefore, notAfter } = source;
    if (notBefore === undefined && notAfter === undefined) return;
    const fromMs = notBefore === undefined ? Number.NEGATIVE_INFINITY : Date.parse(notBefore);
    const toMs = notAfter === undefined ? Number.POSITIVE_INFINITY : Date.parse(notAfter);
    const box = { fromMs, toMs, isOpen: isWithin(fromMs, toMs, nowMs) };
    this.#boxes.set(source, box);
    this.#nextMs = Math.min(this.#nextMs, boundaryAfter(box, nowMs));
  }

  delete(source: ExposureSource): void {
    this.#boxes.delete(source);
  }

  isOpen(source: ExposureSource): boolean {
    return this.#boxes.get(source)?.isOpen ?? true;
  }

  /** Opens and closes the boxes as it is right at `nowMs`, one by one, and yields the record of each that it changes. */
  *turn(nowMs: number): Generator<ExposureSource> {
    this.#nextMs = Number.POSITIVE_INFINITY;
    for (const [source, box] of this.#boxes) {
      this.#nextMs = Math.min(this.#nextMs, boundaryAfter(box, nowMs));
      const isOpen = isWithin(box.fromMs, box.toMs, nowMs);
      if (isOpen === box.isOpen) continue;
      box.isOpen = isOpen;
      yield source;
    }
  }
}

function isWithin(fromMs: number, toMs: number, nowMs: number): boolean {
  return fromMs <= nowMs && nowMs < toMs;
}

function boundaryAfter({ fromMs, toMs }: Box, nowMs: number): number {
  if (nowMs < fromMs) return fromMs;
  return nowMs < toMs ? toMs : Number.POSITIVE_INFINITY;
}
