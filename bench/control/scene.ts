/**
 * The cloud of the benchmark: each site has the same addresses, and each service of the cloud is exposed to each site.
 * @module
 */

import { createHash } from 'node:crypto';
import type { Write } from '../../src/store/index.ts';
import { MOST_REPETITIONS } from './cost.ts';

/** How many services the cloud exposes to each site. */
export const SERVICES = 20;
/** A service that is exposed to no site at the start. */
export const EXTRA = 'extra';
export const OWNER = 'admin';
/** The port of every service, with UDP. */
export const PORT = 7;

/** The seed of all random choices. */
export const SEED = 16;

export const TRUST = 'example.test';

export function siteName(index: number): string {
  return `site-${index}`;
}

/** Returns the address of a host of a site. */
export function hostAddress(index: number): string {
  const host = FIRST_HOST + index;
  return `10.${host >>> 16}.${(host >>> 8) & 255}.${host & 255}`;
}

export function serviceAddress(index: number): string {
  return `10.0.0.${index + 1}`;
}

/** Returns the record of a certificate of each site, as writes to the store. */
export function certificates(sites: number, nowMs: number): Write[] {
  return Array.from({ length: sites }, (_, i) => {
    const serial = (0x40000000 + i).toString(16).padStart(40, '4');
    const record = {
      serial,
      identity: `spiffe://${TRUST}/site/${siteName(i)}`,
      spkiHash: createHash('sha256').update(serial).digest('base64url'),
      notBeforeMs: nowMs,
      notAfterMs: nowMs + CERTIFICATE_MS,
    };
    return { key: `certificate/${serial}`, value: record, expect: 0 };
  });
}

/**
 * Returns the desired state, as a `DesiredInput`.
 *
 * @param clients how many clients all sites have together
 */
export function desiredState(sites: number, clients: number): object {
  const maxClients = MORE * Math.ceil(clients / sites) + SINGLE_CLIENTS;
  const network = { sources: ['10.0.0.0/12'], maxClients };
  const names = Array.from({ length: sites }, (_, i) => siteName(i));
  const services = Array.from({ length: SERVICES }, (_, i) => `svc-${i}`);
  return {
    sites: [
      { name: 'cloud', ...network, pools: ['100.64.0.0/10'], zone: 'cloud.test' },
      ...names.map((name) => ({
        name,
        ...network,
        pools: ['100.64.0.0/24'],
        zone: `${name}.test`,
      })),
    ],
    services: [...services, EXTRA].map((name, i) => ({
      name,
      site: 'cloud',
      address: serviceAddress(i),
      ports: [`udp/${PORT}`, 'tcp/5672'],
    })),
    exposures: names.flatMap((site) => services.map((service) => ({ service, site }))),
  };
}

/** The low word of the first host's address, which no service has. */
const FIRST_HOST = 0x10000;
/** A site may have more clients than it has, so that the quotas refuse nobody. */
const MORE = 2;
/** One site may get all clients that are admitted one by one, before the many clients and after them. */
const SINGLE_CLIENTS = 2 * MOST_REPETITIONS;
const CERTIFICATE_MS = 90 * 24 * 3_600_000;
