/**
 * The first configuration of a gateway: the keys that a newcomer needs, each with a comment.
 * @module
 */
import type { Machine } from './machine.ts';

/** How packets reach the gateway: through the kernel, or by sockets of its process. */
export type StarterDevice = 'tun' | 'sockets';

export interface StarterOptions {
  readonly device: StarterDevice;
  /** Where an editor finds the schema of the file: a path, or a URL. */
  readonly schema: string;
}

/**
 * Returns the text of a cloud gateway's file.
 *
 * @param tunnel where edges connect, as `HOST:PORT`
 */
export function cloudStarter(
  machine: Machine,
  { device, schema, tunnel }: StarterOptions & { readonly tunnel: string }
): string {
  return [
    ...headOf(schema, 'cloud'),
    `trustDomain: ${DOMAIN} # a part of every certificate, never looked up: choose it before the first start`,
    'stateDirectory: ./state # the CA and its key, leases, tokens, revocations, the audit log',
    'adminSocket: ./admin.sock # where the other commands of virtual-presence reach this gateway',
    '',
    ...deviceLines(machine, device),
    '',
    `tunnel: ${tunnel} # edges connect here, and enrol at port 7440 of the same address`,
    ...(device === 'tun' ? dnsLines(machine, 'the cloud') : socketsLines('127.65.0.0/16')),
    '',
    'desired: # SIGHUP reads this part again. Sites, services and exposures may also be made by commands.',
    '  sites:',
    '    - name: cloud',
    `      sources: [${machine.lan?.network ?? LAN}] # the network of the cloud, where its services are`,
    `      pools: [${machine.pool}] # free addresses, which stand for hosts of the sites`,
    `      zone: ${DOMAIN} # names in this zone lead to services of the sites`,
    '',
  ].join('\n');
}

/** Returns the text of an edge gateway's file. */
export function edgeStarter(machine: Machine, { device, schema }: StarterOptions): string {
  return [
    ...headOf(schema, 'edge'),
    'stateDirectory: ./state # key, certificate, last snapshot',
    'adminSocket: ./admin.sock # where the other commands of virtual-presence reach this gateway',
    'tokenFile: ./token # a one-time token of the cloud, which says where the cloud is; needed at the first start',
    '',
    ...deviceLines(machine, device),
    ...(device === 'tun' ? dnsLines(machine, 'the site') : socketsLines('127.64.0.0/16')),
    '',
  ].join('\n');
}

function headOf(schema: string, kind: 'cloud' | 'edge'): string[] {
  return [
    `# yaml-language-server: $schema=${schema}`,
    `# Configuration of ${kind === 'cloud' ? 'a cloud' : 'an edge'} gateway. Relative paths are relative to this file.`,
    '',
  ];
}

function deviceLines({ lan }: Machine, device: StarterDevice): string[] {
  if (device === 'sockets') {
    return [
      'device: # services are reached by the sockets of this machine; that needs no privileges',
      '  type: sockets',
    ];
  }
  return [
    'device: # packets come and go through a TUN device of the kernel',
    '  type: tun',
    '  name: vp0',
    lan === undefined
      ? '  # lan: [eth0] # the interfaces whose hosts are in the LAN of this gateway'
      : `  lan: [${lan.device}] # the interfaces whose hosts are in the LAN; they need a route to the pool over this machine`,
  ];
}

function dnsLines({ address: own, lan, hasDnsPort }: Machine, of: string): string[] {
  const address = lan?.address ?? own;
  const lines = [
    `dns: # answers the names of services, for hosts of ${of}`,
    `  listen: ${address}:53`,
  ];
  if (hasDnsPort) return ['', ...lines];
  return ['', `# Port 53 of ${address} is in use. Give another address or port:`].concat(
    lines.map((line) => `# ${line}`)
  );
}

function socketsLines(loopback: string): string[] {
  return [
    '',
    'sockets: # programs of this machine reach services of other sites here',
    '  publish: # each service at a loopback address of its own, with its own ports; needs Linux',
    `    loopback: ${loopback}`,
    '    hostsFile: ./hosts # their names and addresses, as in /etc/hosts',
    '  # proxy: # or by SOCKS5 and HTTP CONNECT',
    '  #   listen: 1080',
    '  #   passwordFile: ./proxy-password # is created, with a random password',
  ];
}

/** A name that the public DNS never has. */
const DOMAIN = 'presence.internal';
/** The network of a machine that has none yet. */
const LAN = '10.0.0.0/24';
