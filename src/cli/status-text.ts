/**
 * The status of a gateway for people: tables, and what is wrong with the remedy.
 * @module
 */
import type {
  CloudStatusAnswer,
  Counters,
  EdgeStatusAnswer,
  EndpointAnswer,
  OwnMachineAnswer,
  SiteStatusAnswer,
} from '../admin/index.ts';
import { CLOUD } from '../registry/index.ts';
import { countOf, distance, listOf, pairs, table } from './table.ts';

/** Returns one sentence for each thing that is wrong at a cloud gateway, with what to do. */
export function cloudProblems(status: CloudStatusAnswer): string[] {
  const { sites, workers, warnings, ca, machine } = status;
  const down = workers.flatMap(({ pid }, i) =>
    pid === 0
      ? [`the worker ${i} is down, and is started again; its log says why it has ended`]
      : []
  );
  return [
    ...down,
    ...machineProblems(machine),
    ...sites.filter((site) => !isElsewhere(site, machine)).flatMap(siteProblems),
    ...warnings.map(({ message }) => message),
    ...(ca.warning === undefined ? [] : [ca.warning]),
  ];
}

function machineProblems(machine: OwnMachineAnswer | undefined): readonly string[] {
  if (machine === undefined || machine.state === 'closed') return [];
  const { name, state, stopsAt, isDraining } = machine;
  if (state === 'removed') {
    return [
      `the machine "${name}" was removed from the cloud: start its gateway again to have it back`,
    ];
  }
  const end = stopsAt === undefined ? '' : `, and ends its tunnels at ${stopsAt}`;
  const detached = `the machine "${name}" does not reach the store${end}: look at the store and the way to it`;
  const draining = `the machine "${name}" takes no sites: "machine resume ${name}" ends that`;
  return [...(state === 'detached' ? [detached] : []), ...(isDraining ? [draining] : [])];
}

/** Whether another machine holds a site. */
function isElsewhere({ machine }: SiteStatusAnswer, own: OwnMachineAnswer | undefined): boolean {
  return machine !== undefined && machine !== own?.name;
}

/** Returns what a machine says of itself. */
export function machineText(machine: OwnMachineAnswer): string {
  const { name, state, isDraining, isController, detachedSince } = machine;
  return [
    name,
    detachedSince === undefined ? state : `${state} since ${detachedSince}`,
    ...(isDraining ? ['takes no sites'] : []),
    ...(isController ? ['allocates addresses'] : []),
  ].join(', ');
}

function siteProblems({ name, revoked, edge }: SiteStatusAnswer): readonly string[] {
  if (name === CLOUD) return [];
  if (revoked) return [`"${name}" is revoked: "reinstate ${name}" lets it enrol again`];
  if (edge === undefined) {
    return [
      `"${name}" is not connected: run "status" at its edge gateway, or give it a token by "token create ${name}"`,
    ];
  }
  if (edge.appliedRevision >= edge.sentRevision) return [];
  return [
    `"${name}" has not acknowledged the revision ${edge.sentRevision} yet: if this lasts, run "status" at its edge gateway`,
  ];
}

/** Returns one sentence for each thing that is wrong at an edge gateway, with what to do. */
export function edgeProblems(status: EdgeStatusAnswer): string[] {
  const { state, failure, expired, warnings } = status;
  const failed =
    failure === undefined
      ? []
      : [`${failure.message}: ${REMEDIES[failure.remedy] ?? failure.remedy}`];
  const waits =
    state === 'connecting' && failure === undefined ? ['the tunnel is being made; wait'] : [];
  return [
    ...failed,
    ...waits,
    ...(expired === undefined ? [] : [expired]),
    ...warnings.map(({ message }) => message),
  ];
}

const REMEDIES: Readonly<Record<string, string>> = {
  wait: 'the gateway tries again by itself',
  token: 'make a token by "token create" at the cloud, and give it to this gateway by "enrol"',
  configuration: 'change the configuration of this gateway or of the cloud',
  report: 'report it to the operator of the cloud',
};

export function cloudLines(status: CloudStatusAnswer): readonly string[] {
  const { pid, machine, listening, sites, workers, ca, audit, derivation } = status;
  return [
    `cloud gateway, process ${pid}`,
    ...pairs([
      ['machine', machine && machineText(machine)],
      ['tunnels', listOf(listening.tunnels.map(placeOf))],
      ['enrolment', placeOf(listening.enrolment)],
      ['names', listening.dns && placeOf(listening.dns)],
      ['device', listening.device && placeOf(listening.device)],
      ['workers', workers.length > 1 ? String(workers.length) : undefined],
      ['CA', `until ${ca.notAfter} (${distance(ca.notAfter)}), rollover: ${ca.rollover}`],
      ['audit head', audit && `${audit.seq}:${audit.hash}`],
      [
        'derivation',
        derivation.differences === 0 ? undefined : countOf(derivation.differences, 'difference'),
      ],
    ]),
    '',
    ...table(
      TITLES,
      sites.map((site) => siteCells(site, machine)),
      'there are no sites'
    ),
  ];
}

const TITLES = [
  'site',
  'edge',
  'revision',
  'certificate expires',
  'addresses',
  'forwarded',
  'dropped',
];

function siteCells(site: SiteStatusAnswer, own: OwnMachineAnswer | undefined): string[] {
  const { name, revoked, edge, pool, verdicts = {} } = site;
  const isUp = edge === undefined ? 'not connected' : 'connected';
  const place = isElsewhere(site, own) ? `at ${site.machine}` : isUp;
  const [forwarded, dropped] = sumsOf(verdicts);
  return [
    name,
    name === CLOUD ? '-' : revoked ? 'revoked' : place,
    edge === undefined ? '-' : revisionOf(edge),
    edge?.certificate === undefined ? '-' : distance(edge.certificate.notAfter),
    pool === undefined ? '-' : `${pool.leased} of ${pool.capacity}`,
    String(forwarded),
    String(dropped),
  ];
}

function revisionOf({
  sentRevision,
  appliedRevision,
}: NonNullable<SiteStatusAnswer['edge']>): string {
  if (appliedRevision === sentRevision) return String(sentRevision);
  return `${sentRevision}, acknowledged ${appliedRevision}`;
}

/** Returns how many packets were forwarded, and how many were not. */
function sumsOf(verdicts: Counters): readonly [forwarded: number, dropped: number] {
  const all = Object.entries(verdicts);
  const sum = (isWanted: (name: string) => boolean) =>
    all.reduce((total, [name, count]) => total + (isWanted(name) ? count : 0), 0);
  return [sum((name) => name === 'Forward'), sum((name) => name.startsWith('Drop'))];
}

/** Returns what is known of one site beside the row of the table. */
export function siteLines({
  worker,
  machine,
  epoch,
  edge,
  pool,
  verdicts = {},
}: SiteStatusAnswer): readonly string[] {
  const certificate = edge?.certificate;
  return [
    ...pairs([
      ['worker', worker === undefined ? undefined : String(worker)],
      ['machine', machine && `${machine}, epoch ${epoch}`],
      ['certificate', certificate && `${certificate.serial}, until ${certificate.notAfter}`],
      [
        'signed by',
        certificate && (certificate.isCurrent ? 'the CA that signs now' : 'a previous CA'),
      ],
    ]),
    ...(pool?.versions ?? []).flatMap(({ family, capacity, leased, quarantined, clients }) => [
      `IPv${family}: ${leased} of ${capacity} addresses in use, ${quarantined} in quarantine`,
      ...clients.map((each) => `  clients of "${each.site}": ${each.held} of ${each.limit}`),
    ]),
    ...countersLines('packets', verdicts),
    ...countersLines('edge', edge?.counters ?? {}),
  ];
}

export function edgeLines(status: EdgeStatusAnswer): readonly string[] {
  const { site, state, addresses, revision, validUntil, names, tunnel } = status;
  const rtt = tunnel?.rttMs === undefined ? '' : `, ${tunnel.rttMs.toFixed(1)} ms`;
  return [
    `edge gateway of ${site === undefined ? 'no site yet' : `"${site}"`}: ${state}`,
    ...pairs([
      ['names', addresses.dns && placeOf(addresses.dns)],
      ['device', addresses.device && placeOf(addresses.device)],
      [
        'tunnel',
        tunnel && `to ${tunnel.remoteAddress}, ${countOf(tunnel.connections, 'connection')}${rtt}`,
      ],
      [
        'snapshot',
        revision === undefined ? undefined : `revision ${revision}, ${countOf(names, 'name')}`,
      ],
      ['valid until', validUntil && `${validUntil} (${distance(validUntil)})`],
    ]),
    ...countersLines('counters', status.counters),
  ];
}

/** Returns the lines that a status ends with. */
export function problemLines(problems: readonly string[]): readonly string[] {
  if (problems.length === 0) return ['', 'nothing is wrong'];
  return ['', 'what is wrong:', ...problems.map((problem) => `- ${problem}`)];
}

function countersLines(name: string, counters: Counters): readonly string[] {
  const given = Object.entries(counters).filter(([, count]) => count !== 0);
  return given.length === 0
    ? []
    : [`${name}:`, ...given.map(([key, count]) => `  ${key} ${count}`)];
}

/** Returns an endpoint as text. */
export function placeOf({ host, port }: EndpointAnswer): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
