/**
 * The traffic of the random fault run: the service of the cloud, and the clients of each site. It checks all the time that
 * a client has one address in the cloud, which no other client has, that no connection is reset, and that no byte is lost.
 * @module
 */
import { eventually } from '../support/gateway-process.ts';
import type { Host, Program } from '../support/network.ts';
import type { Violations } from './violations.ts';
import type { WorkloadEvent } from './workload-host.ts';

/** The port of the service, which the scene permits. */
export const PORT = 8080;

/** A program of `workload-host.ts`, and what it prints. */
class WorkloadProgram {
  readonly #program: Program;
  #read = 0;

  constructor(
    host: Host,
    args: readonly string[],
    seconds: number,
    onEvent: (event: WorkloadEvent) => void,
    violations: Violations
  ) {
    this.#program = host.start([...PROGRAM, ...args], seconds);
    this.#program.child.stdout!.on('data', () => {
      const { stdout } = this.#program;
      for (;;) {
        const end = stdout.indexOf('\n', this.#read);
        if (end < 0) return;
        onEvent(JSON.parse(stdout.slice(this.#read, end)) as WorkloadEvent);
        this.#read = end + 1;
      }
    });
    void this.#program.ended.then(({ stderr }) => {
      if (stderr !== '') violations.add(`${host.name}: the program has ended: ${stderr}`);
    });
  }

  ready(): Promise<void> {
    return this.#program.printed(/"ready"/);
  }

  say(line: string): void {
    this.#program.write(`${line}\n`);
  }
}

type Report = Extract<WorkloadEvent, { kind: 'report' }>;

interface Ended {
  readonly sent: number;
  readonly received: number;
}

/** The service in the cloud. */
export class Service {
  readonly ended: Map<number, Ended> = new Map();
  readonly #program: WorkloadProgram;

  constructor(host: Host, address: string, seconds: number, violations: Violations) {
    const onEvent = (event: WorkloadEvent): void => {
      if (event.kind === 'ended') this.ended.set(event.id, event);
      if (event.kind === 'fault') violations.add(event.text);
    };
    const args = ['serve', address, `${PORT}`];
    this.#program = new WorkloadProgram(host, args, seconds, onEvent, violations);
  }

  ready(): Promise<void> {
    return this.#program.ready();
  }
}

/** The addresses that clients of all sites have in the cloud, as answers have named them. */
export class SeenAddresses {
  readonly #clients = new Map<string, string>();
  readonly #addresses = new Map<string, string>();
  readonly #violations: Violations;

  constructor(violations: Violations) {
    this.#violations = violations;
  }

  /** Returns the address of a client; undefined if no answer has named it. */
  of(client: string): string | undefined {
    return this.#addresses.get(client);
  }

  see(client: string, address: string): void {
    const before = this.#addresses.get(client);
    if (before !== undefined && before !== address) {
      this.#violations.add(`${client} had the address ${before}, and has ${address} now`);
    }
    const other = this.#clients.get(address);
    if (other !== undefined && other !== client) {
      this.#violations.add(`${address} is the address of ${other}, and of ${client} too`);
    }
    this.#addresses.set(client, address);
    this.#clients.set(address, client);
  }

  /** The addresses of a site's clients may be given to others from now on, and they may get others. */
  forget(site: string): void {
    for (const [client, address] of this.#addresses) {
      if (!client.startsWith(`${site}/`)) continue;
      this.#addresses.delete(client);
      this.#clients.delete(address);
    }
  }
}

export interface ClientsParts {
  readonly site: string;
  readonly host: Host;
  /** The address of the service, as the site knows it. */
  readonly target: string;
  readonly service: Service;
  readonly seen: SeenAddresses;
  readonly violations: Violations;
  readonly lifetimeSeconds: number;
}

/** The clients of a site. */
export class Clients {
  /** The addresses of the clients that ask by UDP. */
  readonly talking: Set<string> = new Set();
  readonly #parts: ClientsParts;
  readonly #program: WorkloadProgram;
  readonly #ended = new Map<number, Ended>();
  readonly #whoami = new Map<number, Extract<WorkloadEvent, { kind: 'whoami' }>>();
  #report: Report | undefined;
  #exchange: number | undefined;

  constructor(parts: ClientsParts) {
    this.#parts = parts;
    const { host, site, target, seen, violations, lifetimeSeconds } = parts;
    const onEvent = (event: WorkloadEvent): void => {
      if (event.kind === 'seen') {
        // An answer to a client that was silenced may be on its way.
        if (this.talking.has(event.client)) seen.see(`${site}/${event.client}`, event.address);
      } else if (event.kind === 'ended') this.#ended.set(event.id, event);
      else if (event.kind === 'whoami') this.#whoami.set(event.id, event);
      else if (event.kind === 'report') this.#report = event;
      else if (event.kind === 'fault') violations.add(`${site}: ${event.text}`);
    };
    const args = ['clients', target, `${PORT}`];
    this.#program = new WorkloadProgram(host, args, lifetimeSeconds, onEvent, violations);
  }

  ready(): Promise<void> {
    return this.#program.ready();
  }

  /** Lets another client appear, which asks by UDP from now on. */
  async appear(client: string): Promise<void> {
    if (this.talking.has(client)) return;
    this.talking.add(client);
    await this.#parts.host.sh(`ip address replace ${client}/16 dev eth0`);
    this.#program.say(`talk ${client}`);
  }

  /** Begins an exchange over one connection, which goes on until `endExchange`. */
  beginExchange(): void {
    this.#exchange = ++exchanges;
    this.#program.say(`exchange ${this.#exchange} ${FIRST_CLIENT}`);
  }

  /** Ends the exchange, and checks that both sides have got what the other one has sent. */
  async endExchange(): Promise<void> {
    const id = this.#exchange!;
    const { service, site, violations } = this.#parts;
    this.#program.say(`end ${id}`);
    const [here, there] = await eventually(`the end of the exchange of ${site}`, () => {
      const both = [this.#ended.get(id), service.ended.get(id)] as const;
      return both[0] !== undefined && both[1] !== undefined
        ? ([...both] as [Ended, Ended])
        : undefined;
    });
    if (here.sent !== there.received || here.received !== there.sent) {
      violations.add(
        `${site}: of ${here.sent} bytes ${there.received} have arrived, and of ${there.sent} ${here.received}`
      );
    }
    this.#ended.delete(id);
    service.ended.delete(id);
  }

  /** Waits until the exchange has got on, and every client has got an answer. */
  async reach(): Promise<void> {
    let before: Report | undefined;
    await eventually(
      `traffic of all clients of ${this.#parts.site}`,
      () => {
        const now = this.#report;
        if (now === undefined) return undefined;
        before ??= now;
        const { answers, received } = before;
        const clients = [...this.talking];
        const areAnswered = clients.every((it) => (now.answers[it] ?? 0) > (answers[it] ?? 0));
        const id = String(this.#exchange);
        const hasMoved = (now.received[id] ?? 0) > (received[id] ?? 0);
        return (areAnswered && hasMoved) || undefined;
      },
      REACH_LIMIT_MS
    ).catch((error: Error) => {
      throw new Error(`${error.message}: ${JSON.stringify({ before, now: this.#report })}`);
    });
  }

  /** Asks once by TCP from the address of a client; returns the address that the service sees. */
  async whoami(client: string): Promise<string> {
    const id = ++questions;
    this.#program.say(`whoami ${id} ${client}`);
    const answer = await eventually(`an answer to ${client}`, () => this.#whoami.get(id));
    this.#whoami.delete(id);
    if (answer.address === undefined) throw new Error(`${client}: ${answer.error}`);
    return answer.address;
  }

  /** Lets all clients but the first one disappear. */
  async leave(): Promise<void> {
    for (const client of [...this.talking]) {
      this.talking.delete(client);
      this.#program.say(`silence ${client}`);
      if (client === FIRST_CLIENT) continue;
      await this.#parts.host.sh(`ip address delete ${client}/16 dev eth0`);
    }
  }
}

let exchanges = 0;
let questions = 0;
/** The client of the exchange, which a site always has. */
export const FIRST_CLIENT = '10.0.0.5';
/** TCP tries again after twice the time since its last try: an outage of 10 s ends for it after 20 s. */
const REACH_LIMIT_MS = 90_000;
const PROGRAM: readonly string[] = [
  process.execPath,
  '--import',
  'tsx',
  'test/faults/workload-host.ts',
];
