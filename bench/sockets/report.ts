/**
 * Medians of the rounds, ratios, targets, and the tables.
 * @module
 */
import { median } from '../gateway/median.ts';
import { aligned, rounded, type Target, targetOf, targetTableOf } from '../gateway/report.ts';

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
    const running = CONTENDERS.filter((name) => figures[name] !== undefined);
    if (running.length > 0) {
      const rows = COLUMNS.map(([field, head, digits]) => [
        head,
        ...running.map((name) => figures[name]![field]?.toFixed(digits) ?? '-'),
      ]);
      tables.push(aligned([['', ...running], ...rows]));
    }
    for (const [name, fields] of Object.entries(figures)) {
      if (running.includes(name)) continue;
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

const CONTENDERS: readonly string[] = ['tunPair', 'agent', 'agent1460'];

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

const TARGETS: readonly {
  readonly what: string;
  /** Part and field. */
  readonly of: readonly [string, string];
  /** What it is divided by; without it, the figure itself counts. */
  readonly to?: readonly [string, string];
  readonly least?: number;
  readonly most?: number;
}[] = [
  {
    what: 'bulk to the service / TUN pair',
    of: ['agent', 'sendGbps'],
    to: ['tunPair', 'sendGbps'],
    least: 0.8,
  },
  {
    what: 'bulk from the service, onread / TUN pair',
    of: ['agent', 'onreadGbps'],
    to: ['tunPair', 'onreadGbps'],
    least: 0.8,
  },
  {
    what: 'bulk from the service, data events / TUN pair',
    of: ['agent', 'dataGbps'],
    to: ['tunPair', 'dataGbps'],
    least: 0.6,
  },
  {
    what: 'CPU per GiB to the service / TUN pair',
    of: ['agent', 'sendCpu'],
    to: ['tunPair', 'sendCpu'],
    most: 1.2,
  },
  {
    what: 'CPU per GiB from the service, onread / TUN pair',
    of: ['agent', 'onreadCpu'],
    to: ['tunPair', 'onreadCpu'],
    most: 1.2,
  },
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
  {
    what: 'connect and request, p50 / TUN pair',
    of: ['agent', 'requestP50Us'],
    to: ['tunPair', 'requestP50Us'],
    most: 0.5,
  },
  { what: 'heap of an idle connection, bytes', of: ['idle', 'heapBytes'], most: 4096 },
  {
    what: 'many streams to the service: sum / one stream',
    of: ['agent', 'sendManyOfOne'],
    least: 0.85,
  },
  {
    what: 'many streams from the service: sum / one stream',
    of: ['agent', 'onreadManyOfOne'],
    least: 0.85,
  },
  { what: "many streams to the service: Jain's index", of: ['agent', 'sendJain'], least: 0.95 },
  { what: "many streams from the service: Jain's index", of: ['agent', 'onreadJain'], least: 0.95 },
  { what: 'sending, 1 % loss, 20 ms / Linux', of: ['loss1', 'sendOfLinux'], least: 0.9 },
  { what: 'receiving, 1 % loss, 20 ms / Linux', of: ['loss1', 'onreadOfLinux'], least: 0.9 },
  { what: 'sending, 0.1 % loss, 20 ms / Linux', of: ['loss0.1', 'sendOfLinux'], least: 0.9 },
  { what: 'receiving, 0.1 % loss, 20 ms / Linux', of: ['loss0.1', 'onreadOfLinux'], least: 0.9 },
];
