/**
 * A report of the benchmark as lines for a terminal.
 * @module
 */
import type { BenchmarkReport } from './benchmark.ts';
import type { Refusal } from './refusals.ts';
import type { ReplayReport } from './replay.ts';
import type { ClassTime, Timing } from './timing.ts';

/** Returns the lines of a report. Figures are rounded; the report itself has all digits. */
export function reportLines({ replay, here, reference }: BenchmarkReport): string[] {
  const lines = replay === undefined ? [] : [...aboutCapture(replay), ...aboutRefusals(replay)];
  lines.push('speed: CPU time of translate on one core', '');
  lines.push(...speedTable(replay?.timing, here.timing, reference.timing));
  const { cpu, node } = here.machine;
  lines.push('', `here: ${cpu}, Node ${node}`);
  lines.push(`reference: ${reference.machine.cpu}, Node ${reference.machine.node}`);
  if (replay !== undefined) {
    lines.push('mix: 64, 576 and 1500 bytes, 7 to 4 to 1, half TCP and half UDP');
    lines.push(...aboutSample(replay));
  }
  return lines;
}

function aboutCapture({ capture, plan, judged, verdicts, notJudged }: ReplayReport): string[] {
  const { format, packets, wireBytes, durationMs, ipPackets, otherFrames } = capture;
  const lines = [
    `capture: ${format}, ${count(packets)} packets, ${bytes(wireBytes)}, ${(durationMs / 1e3).toFixed(1)} s`,
  ];
  const other = Object.entries(otherFrames);
  if (other.length > 0) {
    const kinds = other.map(([kind, number]) => `${count(number)} ${kind}`).join(', ');
    lines.push(`  ${count(packets - ipPackets)} are no IP packets: ${kinds}`);
  }
  const notes: [number, string][] = [
    [capture.paddedPackets, 'were cut by the snap length; zeros stand for what is missing'],
    [capture.completedPackets, 'had no length or header checksum yet (offload); it was computed'],
    [notJudged.cut, 'have cut headers and were not translated: capture 128 bytes of each packet'],
    [notJudged.local, 'stay within one realm and were not translated'],
    [notJudged.beyond, 'were not translated: more conversations or hosts than the tables hold'],
  ];
  for (const [number, what] of notes) if (number > 0) lines.push(`  ${count(number)} ${what}`);

  const from = plan.from === 'inferred' ? 'inferred from the capture' : `by the given ${plan.from}`;
  lines.push(
    `plan: ${from}; hosts: ${count(plan.hosts)}, conversations: ${count(plan.conversations)}, ` +
      `hosts with services: ${count(plan.services.length)}`
  );
  for (const { realm, address, ports } of plan.services.slice(0, MAX_SERVICES)) {
    lines.push(`  ${address} in "${realm}": ${shortened(ports)}`);
  }
  const more = plan.services.length - MAX_SERVICES;
  if (more > 0) lines.push(`  and ${count(more)} more`);

  lines.push(`verdicts: ${count(judged)} packets translated`);
  const sorted = Object.entries(verdicts).sort(([, a], [, b]) => b - a);
  for (const [name, number] of sorted) {
    lines.push(`  ${count(number).padStart(12)}  ${percent(number, judged)}  ${name}`);
  }
  return [...lines, ''];
}

function aboutRefusals({ refusals }: ReplayReport): string[] {
  if (refusals.length === 0) return ['every packet that was translated would pass', ''];
  const lines = ['packets that would not pass:'];
  for (const refusal of refusals.slice(0, MAX_REFUSALS)) lines.push(...aboutRefusal(refusal));
  const rest = refusals.slice(MAX_REFUSALS);
  if (rest.length > 0) {
    const packets = rest.reduce((sum, refusal) => sum + refusal.packets, 0);
    lines.push(
      `  ${count(packets)} more for ${count(rest.length)} other reasons: --json lists them`
    );
  }
  return [...lines, ''];
}

function aboutRefusal({ packets, verdict, reason, remedy, examples }: Refusal): string[] {
  const shown = examples.map(({ number, from, to, protocol }) =>
    protocol === '' ? `packet ${number}` : `packet ${number} (${protocol} from ${from} to ${to})`
  );
  return [
    `  ${count(packets)} x ${verdict}: ${shown.join(', ')}${packets > examples.length ? ', ...' : ''}`,
    `    reason: ${reason}`,
    `    remedy: ${remedy}`,
  ];
}

function aboutSample({ judged, timing }: ReplayReport): string[] {
  const timed = timing.all?.packets ?? 0;
  const lines: string[] = [];
  if (timed + timing.leftOut < judged) {
    lines.push(
      `timed: ${count(timed)} of the ${count(judged)} packets, in runs from all parts of the capture`
    );
  }
  if (timing.leftOut > 0) {
    lines.push(
      `not timed: ${count(timing.leftOut)} packets that get another verdict when they come again`
    );
  }
  return lines;
}

function speedTable(capture: Timing | undefined, here: Timing, reference: Timing): string[] {
  const own = capture ?? here;
  const rows = [own.all, ...own.classes].filter((row) => row !== undefined);
  const columns = capture === undefined ? ['here'] : ['capture', 'mix here'];
  const head = ['packets', 'mean bytes', 'ns a packet', 'packets/s', 'ns to copy it'];
  const lines = [
    ''.padEnd(NAME_WIDTH) +
      [...head, ...columns.slice(1).map((name) => `${name}, ns`), 'reference, ns']
        .map((title) => title.padStart(COLUMN_WIDTH))
        .join(''),
  ];
  for (const row of rows) {
    const cells = [
      count(row.packets),
      row.meanBytes.toFixed(0),
      row.nsPerPacket.toFixed(1),
      count(Math.round(row.packetsPerSecond / 1e3) * 1e3),
      row.copyNsPerPacket.toFixed(1),
      ...(capture === undefined ? [] : [nsOf(here, row.name)]),
      nsOf(reference, row.name),
    ];
    lines.push(
      row.name.padEnd(NAME_WIDTH) + cells.map((cell) => cell.padStart(COLUMN_WIDTH)).join('')
    );
  }
  return lines;
}

function nsOf({ all, classes }: Timing, name: string): string {
  const found: ClassTime | undefined =
    name === 'all' ? all : classes.find((each) => each.name === name);
  return found?.nsPerPacket.toFixed(1) ?? '-';
}

function shortened(ports: readonly string[]): string {
  const shown = ports.slice(0, MAX_PORTS).join(' ');
  return ports.length > MAX_PORTS ? `${shown} and ${ports.length - MAX_PORTS} more` : shown;
}

function count(number: number): string {
  return number.toLocaleString('en');
}

function bytes(number: number): string {
  const unit = UNITS.findLastIndex((_, i) => number >= 1024 ** i);
  const value = number / 1024 ** Math.max(0, unit);
  return `${unit > 0 ? value.toFixed(1) : value} ${UNITS[Math.max(0, unit)]}`;
}

function percent(part: number, whole: number): string {
  return `${((100 * part) / whole).toFixed(2)} %`.padStart(9);
}

const UNITS: readonly string[] = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
const NAME_WIDTH = 20;
const COLUMN_WIDTH = 15;
const MAX_SERVICES = 10;
const MAX_PORTS = 12;
const MAX_REFUSALS = 10;
