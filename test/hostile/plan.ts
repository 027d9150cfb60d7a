/**
 * The plan of the cloud under attack: sites with the same addresses, and the exposures.
 * @module
 */

/** The service that the bystander and a legitimate site-a use. */
export const BUS = { name: 'bus', site: 'cloud', address: '10.0.0.5', port: 7000 } as const;
/** A service that is exposed to site-b only. */
export const VAULT = { name: 'vault', site: 'cloud', address: '10.0.0.6', port: 7001 } as const;
/** A service of site-b, exposed to the cloud only. */
export const CAMERA = { name: 'camera', site: 'site-b', address: '10.0.0.30', port: 9000 } as const;
/** A service of the attacker's site, exposed to the cloud. */
export const SENSOR = { name: 'sensor', site: 'site-a', address: '10.0.0.30', port: 9000 } as const;

/** The client that each site has from the start. */
export const CLIENT = '10.0.0.20';

export const MAX_CLIENTS = 20;
export const TRUST_DOMAIN = 'openstack.test';

/** More sites: attacks that open many connections use them, because each site has a rate of connections. */
const SITES = ['cloud', ...['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((letter) => `site-${letter}`)];

/**
 * The desired state. The cloud's pool has 254 addresses, so that every site can have `maxClients`, which is
 * the limit here; `address-shares.test.ts` tests the default limits.
 */
export function desired(): object {
  return {
    sites: SITES.map((name, i) => ({
      name,
      sources: ['10.0.0.0/24'],
      pools: [`10.${i + 1}.0.0/24`],
      zone: TRUST_DOMAIN,
      maxClients: MAX_CLIENTS,
      clientShare: MAX_CLIENTS,
    })),
    services: [BUS, VAULT, CAMERA, SENSOR].map(({ name, site, address, port }) => ({
      name,
      site,
      address,
      ports: [`udp/${port}`],
    })),
    exposures: [
      ...SITES.slice(1).map((site) => ({ service: BUS.name, site })),
      { service: VAULT.name, site: 'site-b' },
      { service: CAMERA.name, site: 'cloud' },
      { service: SENSOR.name, site: 'cloud' },
    ],
  };
}
