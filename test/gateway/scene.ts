/**
 * Gateways in this process, with devices in memory and tunnels over loopback.
 * @module
 */
import type { AddressInput } from '../../src/base/address.ts';
import { MemoryDevice } from '../../src/device/index.ts';
import {
  CloudGateway,
  type CloudGatewayOptions,
  EdgeGateway,
  type EdgeGatewayOptions,
} from '../../src/gateway/index.ts';
import type { Logger } from '../../src/observe/index.ts';
import {
  MAX_PACKET_LENGTH,
  readUdpFrame,
  type UdpDatagram,
  type UdpDatagramInput,
  udpFrame,
  VNET_HEADER_LENGTH,
} from '../../src/packet/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';

export const ANY_PORT = '127.0.0.1:0';
export const LAN = {
  sources: ['10.0.0.0/24'],
  pools: ['10.0.0.128/25'],
  zone: 'example.test',
} as const;
export const SERVICE = {
  name: 'bus',
  site: 'cloud',
  address: '10.0.0.5',
  ports: ['udp/7'],
} as const;

/** The cloud and these sites, all with the same addresses; the service `bus` is exposed to each. */
export function desired(...sites: string[]): DesiredInput {
  return {
    sites: ['cloud', ...sites].map((name) => ({ name, ...LAN })),
    services: [SERVICE],
    exposures: sites.map((site) => ({ service: 'bus', site })),
  };
}

export function memory(): { readonly store: MemoryStore; readonly secrets: MemorySecrets } {
  return { store: new MemoryStore(), secrets: new MemorySecrets() };
}

/** Returns a logger that appends to `lines`. */
export function logTo(lines: string[]): Logger {
  const line = (_fields: object, message: string): void => void lines.push(message);
  return { debug: () => {}, info: line, warn: line, error: line };
}

/** The hosts behind a gateway's device. */
export class Hosts {
  /** The gateway's end. */
  readonly device: MemoryDevice;
  readonly #far: MemoryDevice;
  readonly #buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  readonly #arrived: UdpDatagram[] = [];
  #answer: ((datagram: UdpDatagram) => string | undefined) | undefined;
  #notify: () => void = () => {};

  constructor() {
    const [near, far] = MemoryDevice.pair();
    this.device = near;
    this.#far = far;
    far.start(() => {
      for (let n = far.read(this.#buffer, 0); n > 0; n = far.read(this.#buffer, 0)) {
        const datagram = readUdpFrame(this.#buffer.subarray(0, n));
        if (datagram !== undefined)
          this.#take({ ...datagram, payload: Buffer.from(datagram.payload) });
      }
    });
  }

  /** Answers the datagrams that arrive from now on. */
  serve(answer: (datagram: UdpDatagram) => string | undefined): void {
    this.#answer = answer;
  }

  send(datagram: UdpDatagramInput): void {
    const frame = udpFrame(datagram);
    this.#far.write(frame, 0, frame.length);
  }

  /** Sends a request until there is an answer; a datagram may be lost, for example the first one of a client. */
  async request(destination: AddressInput, text: string, source = '10.0.0.5'): Promise<string> {
    const ports = { sourcePort: 40_000, destinationPort: 7 };
    for (;;) {
      this.send({ source, destination, ...ports, payload: Buffer.from(text) });
      const timeout = AbortSignal.timeout(RESEND_MS);
      await new Promise<void>((resolve) => {
        this.#notify = resolve;
        timeout.addEventListener('abort', () => resolve());
      });
      const answer = this.#arrived.shift();
      if (answer !== undefined) return Buffer.from(answer.payload).toString();
    }
  }

  #take(datagram: UdpDatagram): void {
    const { source, sourcePort, destination, destinationPort } = datagram;
    const answer = this.#answer?.(datagram);
    if (answer !== undefined) {
      this.send({
        source: destination,
        sourcePort: destinationPort,
        destination: source,
        destinationPort: sourcePort,
        payload: Buffer.from(answer),
      });
      return;
    }
    this.#arrived.push(datagram);
    this.#notify();
  }
}

/** Starts gateways; `close` closes them in reverse order. */
export class Gateways {
  readonly log: string[] = [];
  readonly #running: { close(): Promise<void> }[] = [];

  async cloud(options: Partial<CloudGatewayOptions> = {}): Promise<CloudGateway> {
    const state = options.stateDirectory === undefined ? memory() : {};
    const cloud = await CloudGateway.start({
      trustDomain: 'example.test',
      tunnel: ANY_PORT,
      device: new Hosts().device,
      logger: logTo(this.log),
      ...state,
      ...options,
    });
    this.#running.push(cloud);
    return cloud;
  }

  /** Starts the gateway of one machine of a cloud of several. `store` is its way to the store of all. */
  async machine(
    shared: MemoryStore,
    name: string,
    { ttlMs = 10_000, ...options }: Partial<CloudGatewayOptions> & { readonly ttlMs?: number } = {}
  ): Promise<{ readonly cloud: CloudGateway; readonly store: MemoryStore }> {
    const store = shared.handle();
    const cloud = await this.cloud({
      store: undefined,
      secrets: undefined,
      trust: { passphrase: 'of all machines' },
      cluster: { store, machine: name, ttlMs },
      ...options,
    });
    return { cloud, store };
  }

  async edge(options: Partial<EdgeGatewayOptions> = {}): Promise<EdgeGateway> {
    const state = options.stateDirectory === undefined ? memory() : {};
    const edge = await EdgeGateway.start({
      device: new Hosts().device,
      logger: logTo(this.log),
      ...state,
      ...options,
    });
    this.#running.push(edge);
    return edge;
  }

  async close(): Promise<void> {
    for (const gateway of this.#running.splice(0).reverse()) await gateway.close();
  }
}

const RESEND_MS = 500;
