/**
 * Stacks on one wire in memory: what one sends is handed to the stack that has the destination, at once and unchanged.
 */
import { IpAddress } from '../../src/base/address.ts';
import type { Clock } from '../../src/base/clock.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { VNET_HEADER_LENGTH } from '../../src/packet/index.ts';
import type { StackSite } from '../../src/sockets/site/site-view.ts';
import { SocketStack } from '../../src/sockets/stack.ts';
import type { SocketStackOptions } from '../../src/sockets/stack-options.ts';

/** Two networks, whose stacks are presences to each other. */
const POOLS = ['10.1.0.0/16', '10.2.0.0/16', '2001:db8:1::/48', '2001:db8:2::/48'].map((pool) =>
  IpPrefix.parse(pool)
);

/** The site of stacks in the first network: they may reach these addresses of the second. */
export const SITE: StackSite = {
  sources: ['10.0.0.0/8', '2001:db8::/32'],
  pools: ['10.2.0.0/16', '2001:db8:2::/48'],
  zone: 'test',
  hosts: [
    { name: 'server.test', addresses: ['10.2.0.1'], ports: ['tcp/1-65535'] },
    { name: 'both.test', addresses: ['2001:db8:2::1', '10.2.0.1'], ports: ['tcp/1-65535'] },
    { name: 'other.test', addresses: ['10.2.0.2'], ports: ['tcp/1-65535'] },
    { name: 'web.test', addresses: ['10.2.0.3'], ports: ['tcp/80'] },
  ],
};

/** The site of a stack with these addresses: it may reach the other network. */
export function siteOf(...addresses: string[]): StackSite {
  const own = addresses.map((each) => IpAddress.parse(each));
  return { ...SITE, pools: POOLS.filter((pool) => !own.some((each) => pool.contains(each))) };
}

export class StackNetwork {
  readonly #stacks = new Map<string, SocketStack>();
  readonly #clock: Clock | undefined;
  /** Addresses whose packets are lost. */
  readonly silent: Set<string> = new Set();
  /** How many packets were sent. */
  packets = 0;

  constructor(clock?: Clock) {
    this.#clock = clock;
  }

  /** Makes a stack with these addresses whose link is up. */
  stack(...address: string[]): SocketStack {
    return this.stackWith({ address });
  }

  stackWith(options: SocketStackOptions & { readonly address: readonly string[] }): SocketStack {
    const stack = new SocketStack({ ...(this.#clock && { clock: this.#clock }), ...options });
    const buffer = Buffer.alloc(LONGEST_FRAME);
    for (const address of options.address) this.#stacks.set(address, stack);
    stack.setSite(siteOf(...options.address));
    stack.linkChanged(true);
    stack.start(() => {
      for (let length = stack.read(buffer, 0); length > 0; length = stack.read(buffer, 0)) {
        this.packets++;
        const destination = destinationOf(buffer);
        if (this.silent.has(destination)) continue;
        this.#stacks.get(destination)?.write(buffer, 0, length);
      }
    });
    return stack;
  }
}

function destinationOf(frame: Buffer): string {
  const isIPv4 = frame[VNET_HEADER_LENGTH]! >> 4 === 4;
  const at = VNET_HEADER_LENGTH + (isIPv4 ? 16 : 24);
  return IpAddress.fromBytes(isIPv4 ? 4 : 6, frame, at).toString();
}

const LONGEST_FRAME = 65_536 + VNET_HEADER_LENGTH;
