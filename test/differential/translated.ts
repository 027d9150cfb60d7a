/**
 * The translator's side: one translator under the scene's plan.
 * @module
 */
import { PacketTranslator, VERDICT_NAMES, Verdict } from '../../src/translator/index.ts';
import { VNET } from '../support/vnet.ts';
import type { Scene } from './scene.ts';

/** Where the packet is after the verdict; a translator that never moves it does not say. */
interface Place {
  readonly start?: number;
  readonly end?: number;
  readonly vnet?: number;
}

export class Translated {
  readonly #translator = new PacketTranslator();

  constructor(scene: Scene) {
    this.#translator.load(scene.plan);
  }

  /** The frame that leaves, with its virtio-net header; or the name of the verdict against it. */
  pass({ from, frame }: { from: 'near' | 'far'; frame: Uint8Array }): Uint8Array | string {
    const translator = this.#translator;
    const buffer = frame.slice();
    const verdict = translator.translate(translator.realm(from), buffer, VNET, buffer.length, 0);
    if (verdict !== Verdict.Forward) return VERDICT_NAMES[verdict]!;
    const to = from === 'near' ? 'far' : 'near';
    if (translator.egress !== translator.realm(to)) return 'left where it came from';
    const { start = VNET, end = buffer.length, vnet = 0 }: Place = translator as Place;
    const out = new Uint8Array(VNET + end - start);
    out.set(buffer.subarray(vnet, vnet + VNET));
    out.set(buffer.subarray(start, end), VNET);
    return out;
  }
}
