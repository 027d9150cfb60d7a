/**
 * Medians of the rounds, ratios, targets, and the tables.
 * @module
 */
import { median } from '../gateway/median.ts';
import { aligned, rounded, type Target, targetOf, targetTableOf } from '../gateway/report.ts';
import { CONTENDER_NAMES, type ContenderName } from './contenders.ts';

export type Figures = Readonly<Record<string, number | null>>;

export interface Failure {
  readonly name: string;
  readonly round: number;
  readonly message: string;
}

export class Report {
  readonly failures: Failure[] = [];
  readonly #rounds = new Map<string, Figures[]>();

  add(name: string, figures: Figures): void {
    const rounds = this.#rounds.get(name) ?? [];
    this.#rounds.set(name, [...rounds, figures]);
  }

  fail(failure: Failure): void {
    this.failures.push(failure);
  }

  /** The medians of all rounds, by part. */
  get figures(): Readonly<Record<string, Figures>> {
    const parts = [...this.#rounds].map(([name, rounds]) => [name, mediansOf(rounds)] as const);
    return Object.fromEntries(parts);
  }

  /** A ratio is that of the medians. Those whose parts did not run are left out. */
  get targets(): readonly Target[] {
    const { figures } = this;
    return TARGETS.filter(({ of: [part] }) => figures[part] !== undefined).map(
      ({ what, of, to, least, most }) => {
        const above = figures[of[0]]?.[of[1]];
        const below = to === undefined ? 1 : figures[to[0]]?.[to[1]];
        const value = above == null || below == null || below === 0 ? null : rounded(above / below);
        return targetOf(what, value, least, most);
      }
    );
  }

  get text(): string {
    const { figures } = this;
    const tables: string[] = [];
    const running = CONTENDER_NAMES.filter((name) => figures[name] !== undefined);
    if (running.length > 0) {
      const rows = COLUMNS.map(([field, head, digits]) => [
        head,
        ...running.map((name) => figures[name]![field]?.toFixed(digits) ?? '-'),
      ]);
      tables.push(aligned([['', ...running], ...rows]));
    }
    for (const [name, fields] of Object.entries(figures)) {
      if ((running as readonly string[]).includes(name)) continue;
      const rows = Object.entries(fields).map(([field, value]) => [field, String(value ?? '-')]);
      tables.push(aligned([[name, ''], ...rows]));
    }
    const rival = figures.tunPair;
    if (rival !== undefined) {
      const rows = DOCUMENTED.map(([field, what, documented]) => [
        what,
        rival[field]?.toFixed(2) ?? '-',
        String(documented),
      ]);
      tables.push(aligned([['the TUN pair with programs in C', 'is', 'documented'], ...rows]));
    }
    tables.push(targetTableOf(this.targets, ''));
    return tables.join('\n\n');
  }
}

function mediansOf(rounds: readonly Figures[]): Figures {
  const medians = Object.keys(rounds[0]!).map((field) => {
    const values = rounds.map((figures) => figures[field]).filter((value) => value != null);
    return [field, values.length === 0 ? null : rounded(median(values))] as const;
  });
  return Object.fromEntries(medians);
}

/** Field, head of the row, digits. */
const COLUMNS: readonly (readonly [string, string, number])[] = [
  ['sendGbps', 'to the service, Gbit/s', 2],
  ['onreadGbps', 'from the service, onread', 2],
  ['dataGbps', 'from the service, data events', 2],
  ['sendCpu', 'to the service, CPU s/GiB of all processes', 2],
  ['onreadCpu', 'from the service, onread', 2],
  ['dataCpu', 'from the service, data events', 2],
  ['requestP50Us', 'connect and request, p50 us', 0],
  ['requestP99Us', 'p99', 0],
  ['sendManyGbps', 'many streams to the service, Gbit/s', 2],
  ['sendManyOfOne', 'divided by one stream', 2],
  ['sendJain', "Jain's index", 4],
  ['onreadManyGbps', 'many streams from the service, Gbit/s', 2],
  ['onreadManyOfOne', 'divided by one stream', 2],
  ['onreadJain', "Jain's index", 4],
];

/** What docs/performance.md says of the TUN pair. */
const DOCUMENTED: readonly (readonly [string, string, number])[] = [
  ['iperfGbps', 'one TCP stream, Gbit/s', 8.2],
  ['iperfCpu', 'CPU s/GiB of the gateways', 1.39],
  ['connectP50Us', 'connect and request, us', 324],
];

interface TargetSpec {
  readonly what: string;
  /** Part and field. */
  readonly of: readonly [string, string];
  /** What it is divided by; without it, the figure itself counts. */
  readonly to?: readonly [string, string];
  readonly least?: number;
  readonly most?: number;
}

/** The targets of a contender beside the TUN pair. */
function besideTunPair(name: ContenderName): TargetSpec[] {
  const row = (what: string, field: string, bound: { least?: number; most?: number }) => ({
    what: `${name}: ${what} / TUN pair`,
    of: [name, field] as const,
    to: ['tunPair', field] as const,
    ...bound,
  });
  return [
    row('bulk to the service', 'sendGbps', { least: 0.8 }),
    row('bulk from the service, onread', 'onreadGbps', { least: 0.8 }),
    row('bulk from the service, data events', 'dataGbps', { least: 0.6 }),
    row('CPU per GiB to the service', 'sendCpu', { most: 1.2 }),
    row('CPU per GiB from the service, onread', 'onreadCpu', { most: 1.2 }),
    row('connect and request, p50', 'requestP50Us', { most: 0.5 }),
  ];
}

/** The targets of a contender with many streams. */
function withManyStreams(name: ContenderName): TargetSpec[] {
  const of = (field: string) => [name, field] as const;
  return [
    {
      what: `${name}: many streams to the service: sum / one`,
      of: of('sendManyOfOne'),
      least: 0.85,
    },
    { what: `${name}: many streams from it: sum / one`, of: of('onreadManyOfOne'), least: 0.85 },
    { what: `${name}: many streams to it: Jain's index`, of: of('sendJain'), least: 0.95 },
    { what: `${name}: many streams from it: Jain's index`, of: of('onreadJain'), least: 0.95 },
  ];
}

/** What a forward costs beside a TUN pair has no target: it has a process more. */
const FORWARD_TARGETS: readonly TargetSpec[] = besideTunPair('forward').slice(0, 3);

const TARGETS: readonly TargetSpec[] = [
  ...besideTunPair('agent'),
  ...besideTunPair('backend'),
  ...FORWARD_TARGETS,
  {
    what: 'bulk to the service, super-segments / segments of 1,460',
    of: ['agent', 'sendGbps'],
    to: ['agent1460', 'sendGbps'],
    least: 2,
  },
  {
    what: 'bulk from the service, super-segments / segments of 1,460',
    of: ['agent', 'onreadGbps'],
    to: ['agent1460', 'onreadGbps'],
    least: 2,
  },
  {
    what: 'CPU per GiB of both ends, segments of 1,460 / super-segments',
    of: ['endpoint', 'shortCpu'],
    to: ['endpoint', 'superCpu'],
    least: 2,
  },
  { what: 'heap of an idle connection, bytes', of: ['idle', 'heapBytes'], most: 4096 },
  ...withManyStreams('agent'),
  ...withManyStreams('backend'),
  {
    what: 'backend: cost of a connection, most services / fewest',
    of: ['backendGrowth', 'servicesGrowth'],
    most: 1.25,
  },
  {
    what: 'backend: cost of a connection, most idle connections / none',
    of: ['backendGrowth', 'idleGrowth'],
    most: 1.25,
  },
  { what: 'sending, 1 % loss, 20 ms / Linux', of: ['loss1', 'sendOfLinux'], least: 0.9 },
  { what: 'receiving, 1 % loss, 20 ms / Linux', of: ['loss1', 'onreadOfLinux'], least: 0.9 },
  { what: 'sending, 0.1 % loss, 20 ms / Linux', of: ['loss0.1', 'sendOfLinux'], least: 0.9 },
  { what: 'receiving, 0.1 % loss, 20 ms / Linux', of: ['loss0.1', 'onreadOfLinux'], least: 0.9 },
];
