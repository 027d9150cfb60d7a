/**
 * The figures of this machine beside those that the package ships: for a capture, and for the built-in mix of packets,
 * which is what the shipped figures were measured with (`bench/reference.ts`).
 * @module
 */
import { cpus } from 'node:os';
import { builtInMix } from './built-in-mix.ts';
import { CaptureBytes, type CaptureSource } from './capture-source.ts';
import figures from './reference-figures.json' with { type: 'json' };
import { type ReplayOptions, type ReplayReport, replayCapture } from './replay.ts';
import type { Timing } from './timing.ts';

/** What figures were measured on. */
export interface Machine {
  /** The model of the processor. */
  readonly cpu: string;
  readonly node: string;
}

/** The built-in mix on a machine. */
export interface MixFigures {
  readonly machine: Machine;
  readonly timing: Timing;
}

export interface BenchmarkReport {
  /** What became of the capture; absent without one. */
  readonly replay?: ReplayReport;
  /** The built-in mix on this machine. */
  readonly here: MixFigures;
  /** The built-in mix on the machine of the shipped figures. */
  readonly reference: MixFigures;
}

/**
 * Replays a capture if there is one, and times the built-in mix.
 *
 * @throws {CaptureError} if the capture is damaged, or has no IP packets.
 * @throws {ConfigError} if a desired state does not have the site that the plan names.
 * @throws {EnvironmentError} if the file cannot be read.
 */
export async function benchmark(
  capture: CaptureSource | undefined,
  options: ReplayOptions = {}
): Promise<BenchmarkReport> {
  const replay = capture && (await replayCapture(capture, options));
  const here = await measureMix(options);
  return { ...(replay && { replay }), here, reference: figures };
}

/** Times the built-in mix on this machine. */
export async function measureMix({
  effort,
}: Pick<ReplayOptions, 'effort'> = {}): Promise<MixFigures> {
  const { timing } = await replayCapture(new CaptureBytes(builtInMix()), effort && { effort });
  const cpu = cpus()[0]?.model.trim() || process.arch;
  return { machine: { cpu, node: process.version }, timing };
}
