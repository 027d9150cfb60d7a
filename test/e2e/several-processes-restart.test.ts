/**
 * What the controller does while a member's process is down, and when it comes back; no process is started:
 * a member is the far end of a wire.
 */
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { afterEach, expect, test, vi } from 'vitest';
import type { AccessTable } from '../../examples/cloud-gateway/access.ts';
import type { CloudConfig } from '../../examples/cloud-gateway/config.ts';
import type { MemberStart } from '../../examples/cloud-gateway/member-calls.ts';
import { Members } from '../../examples/cloud-gateway/members.ts';
import { Placement } from '../../examples/cloud-gateway/placement.ts';
import { type Calls, Wire, type WirePort } from '../../examples/cloud-gateway/wire.ts';
import { EnvironmentError, type PresenceUse } from '../../src/index.ts';

const HOST = '127.0.0.1';

/** A process that listens nowhere, and says that it does. */
class FakeMember extends EventEmitter {
  connected = true;
  exitCode: number | null = null;
  readonly signalCode: string | null = null;
  number: number | undefined;
  tables: AccessTable[] = [];
  uses: PresenceUse[] = [];
  readonly #far = new EventEmitter();

  constructor() {
    super();
    const port: WirePort = {
      send: (message) => setImmediate(() => this.emit('message', message)) !== undefined,
      on: (event, listener) => this.#far.on(event, listener),
    };
    const calls: Calls = {
      open: ({ number, tunnel: { port: wanted }, access }: MemberStart) => {
        this.number = number;
        this.tables.push(access);
        if (taken.has(wanted)) {
          throw new EnvironmentError(`cannot listen on ${HOST}:${wanted}: it is in use`);
        }
        return { tunnel: { host: HOST, port: wanted === 0 ? nextPort++ : wanted } };
      },
      load: () => {},
      access: (table: AccessTable) => this.tables.push(table),
      presenceUses: () => this.uses.splice(0),
      close: () => {},
    };
    new Wire(port, calls);
  }

  send(message: unknown): boolean {
    return setImmediate(() => this.#far.emit('message', message)) !== undefined;
  }

  disconnect(): void {
    if (!this.connected) return;
    this.connected = false;
    this.end();
  }

  end(): void {
    this.exitCode = 1;
    setImmediate(() => this.emit('exit', 1, null));
  }
}

/** Ports that other programs have. */
const taken = new Set<number>();
let nextPort = 40_000;
/** In the order in which they were started. */
const started: FakeMember[] = [];
let members: Members | undefined;

vi.mock('node:child_process', async (original) => ({
  ...(await original<typeof import('node:child_process')>()),
  fork: () => {
    const member = new FakeMember();
    started.push(member);
    return member as unknown as ChildProcess;
  },
}));

afterEach(async () => {
  await members?.close();
  taken.clear();
  started.length = 0;
});

async function open(): Promise<Members> {
  const config = {
    processes: 2,
    device: { type: 'none', mtu: 1500 },
    tunnel: { host: HOST, port: 0 },
  } as unknown as CloudConfig;
  const opened: Members = new Members(
    {
      config,
      placement: new Placement(2),
      credentials: () => ({}) as never,
      access: () => ({}) as never,
      accessTable: () => ({
        holders: new Map(),
        ports: opened.ports,
        revocations: { sites: new Set(), serials: new Set(), spkis: new Set() },
        retired: [],
      }),
      openDevice: () => {
        throw new Error('there is none');
      },
    },
    { admit: async () => {}, onTunnel: () => {}, onRefused: () => {}, log: () => {} }
  );
  members = opened;
  await opened.open();
  return opened;
}

const memberOf = (number: number): FakeMember =>
  started.findLast((member) => member.number === number)!;

test('a process that was started again on its port is there for the others as before', async () => {
  const opened = await open();
  const ports = new Map(opened.ports);
  memberOf(1).end();
  await vi.waitFor(() => expect(started).toHaveLength(3), 20_000);
  await vi.waitFor(() => expect(memberOf(1)).toBe(started[2]), 20_000);
  expect(opened.ports).toEqual(ports);
});

test('a process whose port another program took meanwhile takes a free one, and the others are told', async () => {
  const opened = await open();
  const before = opened.portOf(1)!;
  taken.add(before);
  memberOf(1).end();
  await vi.waitFor(() => {
    const known = memberOf(0).tables.at(-1)!.ports.get(1);
    expect(known).toBeGreaterThan(0);
    expect(known).not.toBe(before);
    expect(opened.portOf(1)).toBe(known);
    expect(opened.addresses[1]!.tunnel.port).toBe(known);
  }, 20_000);
});

test('what was used is not known while a process is down, and nothing of it is lost', async () => {
  const opened = await open();
  const use = { realm: 'cloud', address: '10.0.0.129' };
  memberOf(0).uses.push(use);
  taken.add(opened.portOf(1)!);
  memberOf(1).end();
  await vi.waitFor(async () => {
    await expect(opened.presenceUses()).rejects.toThrow(/process 1/);
  }, 20_000);
  await vi.waitFor(async () => expect(await opened.presenceUses()).toEqual([use]), 20_000);
  expect(await opened.presenceUses()).toEqual([]);
});
