/**
 * Mistakes that an operator may make in a gateway's file, and the messages about them.
 * @module
 */
import type { Config } from '../support/gateway-process.ts';

export interface ConfigFault {
  readonly fault: string;
  /** Changes a valid configuration into an invalid one. */
  readonly spoil: (config: Config) => void;
  /** Text on the line that the message names; absent when the key is missing from the whole file. */
  readonly line?: string;
  readonly key: string;
  readonly says: RegExp;
}

/** Sets the value at `path`, for example `desired.sites[1].zone`; undefined removes it. */
function set(path: string, value: unknown): (config: Config) => void {
  const keys = path.split(/[.[\]]+/).filter((key) => key !== '');
  const last = keys.pop()!;
  return (config) => {
    const parent = keys.reduce<Config>((at, key) => at[key] as Config, config);
    if (value === undefined) delete parent[last];
    else parent[last] = value;
  };
}

const site = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'openstack.test' };
const anEndpoint = /host and port such as 192\.0\.2\.1:7443, got "cloud"/;

export const FAULTS_OF_BOTH: readonly ConfigFault[] = [
  {
    fault: 'an unknown key',
    spoil: set('colour', 'red'),
    line: 'colour: red',
    key: 'colour',
    says: /^is not a known key$/,
  },
  {
    fault: 'an unknown key further in',
    spoil: set('dns.colour', 'red'),
    line: 'colour: red',
    key: 'dns.colour',
    says: /^is not a known key$/,
  },
  {
    fault: 'a missing key',
    spoil: set('stateDirectory', undefined),
    key: 'stateDirectory',
    says: /^is missing/,
  },
  {
    fault: 'a missing key further in',
    spoil: set('dns.listen', undefined),
    line: 'dns:',
    key: 'dns.listen',
    says: /^is missing/,
  },
  {
    fault: 'a number where a path belongs',
    spoil: set('stateDirectory', 7),
    line: 'stateDirectory: 7',
    key: 'stateDirectory',
    says: /^expected .*(string|text), got 7$/,
  },
  {
    fault: 'a host name where DNS is to listen',
    spoil: set('dns.listen', 'localhost:53'),
    line: 'listen: localhost:53',
    key: 'dns.listen',
    says: /IP address, not a name/,
  },
  {
    fault: 'an upstream that is no address',
    spoil: set('dns.forward', [{ suffix: '.', upstreams: ['192.0.2.256'] }]),
    line: '- 192.0.2.256',
    key: 'dns.forward[0].upstreams[0]',
    says: /"192\.0\.2\.256" is not an address/,
  },
  {
    fault: 'a client of DNS that is no prefix',
    spoil: set('dns.allow', ['sources', 'everybody']),
    line: '- everybody',
    key: 'dns.allow[1]',
    says: /"everybody" is not an IP prefix, nor "sources" or "loopback"$/,
  },
  {
    fault: 'a rate of DNS answers out of its range',
    spoil: set('dns.rateLimit', { slip: 11 }),
    line: 'slip: 11',
    key: 'dns.rateLimit.slip',
    says: /^11 is not an integer from 0 to 10/,
  },
  {
    fault: 'a device of a kind that there is not',
    spoil: set('device.type', 'tap'),
    line: 'type: tap',
    key: 'device.type',
    says: /"tun" or "udp" or "unix"(?: or "sockets")?, got "tap"$/,
  },
  {
    fault: 'an MTU that IPv6 does not allow',
    spoil: set('device.mtu', 576),
    line: 'mtu: 576',
    key: 'device.mtu',
    says: /^expected a whole number from 1280 to 65535, got 576$/,
  },
];

export const FAULTS_OF_CLOUD: readonly ConfigFault[] = [
  {
    fault: 'a key that a program has and a file has not',
    spoil: set('logger', 2),
    line: 'logger: 2',
    key: 'logger',
    says: /^is not a known key$/,
  },
  {
    fault: 'a passphrase in place of its file',
    spoil: set('trust', { passphrase: 'correct horse' }),
    line: 'passphrase: correct horse',
    key: 'trust.passphrase',
    says: /^is not a known key$/,
  },
  {
    fault: 'an endpoint without a port',
    spoil: set('tunnel', 'cloud'),
    line: 'tunnel: cloud',
    key: 'tunnel',
    says: anEndpoint,
  },
  {
    fault: 'a port above 65535',
    spoil: set('tunnel', '127.0.0.1:70000'),
    line: 'tunnel: 127.0.0.1:70000',
    key: 'tunnel',
    says: /^expected a port from 0 to 65535$/,
  },
  {
    fault: 'an endpoint at no possible address',
    spoil: set('tunnel', '300.1.1.1:7443'),
    line: 'tunnel: 300.1.1.1:7443',
    key: 'tunnel',
    says: /^expected an IP address or a host name/,
  },
  {
    fault: 'an enrolment endpoint without TLS',
    spoil: set('enrolment.endpoints', ['http://192.0.2.1:7444']),
    line: '- http://192.0.2.1:7444',
    key: 'enrolment.endpoints[0]',
    says: /^expected https:\/\/HOST:PORT, got "http:\/\/192\.0\.2\.1:7444"$/,
  },
  {
    fault: 'a trust domain with capitals',
    spoil: set('trustDomain', 'OpenStack.test'),
    line: 'trustDomain: OpenStack.test',
    key: 'trustDomain',
    says: /lower-case domain name, got "OpenStack\.test"$/,
  },
  {
    fault: 'no desired state',
    spoil: set('desired', undefined),
    key: 'desired',
    says: /^is missing/,
  },
  {
    fault: 'sites that are no list',
    spoil: set('desired.sites', 'site-a'),
    line: 'sites: site-a',
    key: 'desired.sites',
    says: /^expected a list, got "site-a"$/,
  },
  {
    fault: 'no site with the name cloud',
    spoil: set('desired', { sites: [{ name: 'site-a', ...site }] }),
    line: 'sites:',
    key: 'desired.sites',
    says: /"cloud"/,
  },
  {
    fault: 'a name that is no DNS label',
    spoil: set('desired.sites[1].name', 'Site A'),
    line: 'name: Site A',
    key: 'desired.sites[1].name',
    says: /lower-case letters, digits and hyphens, got "Site A"$/,
  },
  {
    fault: 'a pool with host bits',
    spoil: set('desired.sites[1].pools', ['10.0.0.129/25']),
    line: '- 10.0.0.129/25',
    key: 'desired.sites[1].pools[0]',
    says: /"10\.0\.0\.129\/25".*10\.0\.0\.128\/25/,
  },
  {
    fault: 'sources that are no prefix',
    spoil: set('desired.sites[1].sources', ['10.0.0/24']),
    line: '- 10.0.0/24',
    key: 'desired.sites[1].sources[0]',
    says: /"10\.0\.0\/24" is not an IP prefix/,
  },
  {
    fault: 'a zone with an empty label',
    spoil: set('desired.sites[1].zone', 'openstack..test'),
    line: 'zone: openstack..test',
    key: 'desired.sites[1].zone',
    says: /domain name.*"openstack\.\.test"/,
  },
  {
    fault: 'a service at no possible address',
    spoil: set('desired.services[1].address', '10.0.0.256'),
    line: 'address: 10.0.0.256',
    key: 'desired.services[1].address',
    says: /"10\.0\.0\.256" is not an IP address/,
  },
  {
    fault: 'a service at an address that is not its site’s',
    spoil: set('desired.services[1].address', '192.0.2.6'),
    line: 'address: 192.0.2.6',
    key: 'desired.services[1].address',
    says: /192\.0\.2\.6.*"cloud"/,
  },
  {
    fault: 'a port above 65535 of a service',
    spoil: set('desired.services[1].ports', ['tcp/70000']),
    line: '- tcp/70000',
    key: 'desired.services[1].ports[0]',
    says: /"tcp\/70000".*tcp\/5672/,
  },
  {
    fault: 'a range of ports from high to low',
    spoil: set('desired.services[1].ports', ['udp/8100-8000']),
    line: '- udp/8100-8000',
    key: 'desired.services[1].ports[0]',
    says: /"udp\/8100-8000"/,
  },
  {
    fault: 'an exposure of a service that there is not',
    spoil: set('desired.exposures[0].service', 'rabitmq'),
    line: 'service: rabitmq',
    key: 'desired.exposures[0].service',
    says: /"rabitmq" is not a service/,
  },
  {
    fault: 'an exposure to a site that there is not',
    spoil: set('desired.exposures[0].site', 'site-c'),
    line: 'site: site-c',
    key: 'desired.exposures[0].site',
    says: /"site-c" is not a site/,
  },
  {
    fault: 'two sites of one name',
    spoil: set('desired.sites[2].name', 'site-a'),
    // the third presence; no other name occurs twice in the file
    line: 'name: site-a',
    key: 'desired.sites[2]',
    says: /./,
  },
  {
    fault: 'two names of one kind at one site',
    spoil: set('desired.exposures', [
      { service: 'keystone', site: 'site-a' },
      { service: 'rabbitmq', site: 'site-a', dnsName: 'keystone' },
    ]),
    line: 'dnsName: keystone',
    key: 'desired.exposures[1].dnsName',
    says: /keystone\.openstack\.test.*"keystone".*"site-a"/,
  },
];

export const FAULTS_OF_EDGE: readonly ConfigFault[] = [
  {
    fault: 'a token in place of its file',
    spoil: set('token', 'vp1.e30'),
    line: 'token: vp1.e30',
    key: 'token',
    says: /^is not a known key$/,
  },
  {
    fault: 'port 0 where it is to dial',
    spoil: set('cloud', ['127.0.0.1:0']),
    line: '- 127.0.0.1:0',
    key: 'cloud[0]',
    says: /^expected a port from 1 to 65535$/,
  },
  {
    fault: 'port 0 where packets are to go',
    spoil: set('device.peer', '127.0.0.1:0'),
    line: 'peer: 127.0.0.1:0',
    key: 'device.peer',
    says: /^expected a port from 1 to 65535$/,
  },
  {
    fault: 'no endpoint of the cloud',
    spoil: set('cloud', []),
    line: 'cloud: []',
    key: 'cloud',
    says: /^expected at least one host and port$/,
  },
  {
    fault: 'an endpoint without a port',
    spoil: set('cloud', ['cloud']),
    line: '- cloud',
    key: 'cloud[0]',
    says: anEndpoint,
  },
  {
    fault: 'a device between two IP versions',
    spoil: set('device.peer', '[::1]:9'),
    line: 'device:',
    key: 'device',
    says: /^expected addresses of one IP version/,
  },
];
