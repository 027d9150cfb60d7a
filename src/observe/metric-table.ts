/**
 * The table of metrics: what a gateway measures, under which name and labels, and in which unit. `docs/monitoring.md`
 * has the same table. No label holds a host, an address or a service, so the number of series grows with the sites
 * alone.
 * @module
 */

/** The name of a metric without its prefix. */
export type MetricName =
  | 'build_info'
  | 'ready'
  | 'packets_total'
  | 'edge_packets_total'
  | 'path_bytes_total'
  | 'dropped_packets_total'
  | 'tunnel_up'
  | 'tunnel_connections'
  | 'tunnel_rtt_seconds'
  | 'tunnel_bytes_total'
  | 'tunnel_dropped_packets_total'
  | 'handshakes_total'
  | 'enrolments_total'
  | 'renewals_total'
  | 'last_revocation_duration_seconds'
  | 'revoked_sites'
  | 'snapshot_revision'
  | 'snapshot_expiry_timestamp_seconds'
  | 'exposures'
  | 'pool_addresses'
  | 'certificate_expiry_timestamp_seconds'
  | 'pending_packets'
  | 'admissions_total'
  | 'dns_queries_total'
  | 'dns_forward_duration_seconds'
  | 'store_commit_duration_seconds'
  | 'workers'
  | 'workers_killed_total'
  | 'machines'
  | 'machine_attached'
  | 'controller'
  | 'sites_held'
  | 'event_loop_delay_seconds';

export interface MetricDefinition {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  /** The names of its labels. */
  readonly labels: readonly string[];
  /** Which gateways have it. */
  readonly at: readonly ('cloud' | 'edge')[];
}

/** Stands in front of each name. */
export const METRIC_PREFIX = 'virtual_presence_';

const CLOUD = ['cloud'] as const;
const EDGE = ['edge'] as const;
const BOTH = ['cloud', 'edge'] as const;

function counter(
  at: MetricDefinition['at'],
  labels: readonly string[],
  help: string
): MetricDefinition {
  return { type: 'counter', help, labels, at };
}

function gauge(
  at: MetricDefinition['at'],
  labels: readonly string[],
  help: string
): MetricDefinition {
  return { type: 'gauge', help, labels, at };
}

function histogram(
  at: MetricDefinition['at'],
  labels: readonly string[],
  help: string
): MetricDefinition {
  return { type: 'histogram', help, labels, at };
}

/** In the order in which they are written. */
export const METRICS: Readonly<Record<MetricName, MetricDefinition>> = Object.freeze({
  build_info: gauge(
    BOTH,
    ['version', 'node'],
    'The versions of virtual-presence and of Node; always 1.'
  ),
  ready: gauge(
    BOTH,
    ['subject'],
    'Whether this part of the gateway can do its work (1) or not (0).'
  ),
  packets_total: counter(
    CLOUD,
    ['site', 'verdict'],
    'Packets from a site by the verdict of the translator.'
  ),
  edge_packets_total: counter(
    EDGE,
    ['site', 'direction', 'verdict'],
    'Packets to the tunnel (outbound) and from it (inbound) by the verdict of the filter.'
  ),
  path_bytes_total: counter(
    CLOUD,
    ['site'],
    'Bytes of the packets from a site that the translator has forwarded, before translation.'
  ),
  dropped_packets_total: counter(
    BOTH,
    ['reason'],
    'Packets that passed every check and could not be delivered.'
  ),
  tunnel_up: gauge(
    BOTH,
    ['site'],
    'Whether the tunnel of a site is up (1) or not (0); absent for a revoked site, and where another machine holds it.'
  ),
  tunnel_connections: gauge(
    BOTH,
    ['site'],
    'Connections that carry the packets of a tunnel; 0 while it is down.'
  ),
  tunnel_rtt_seconds: gauge(
    BOTH,
    ['site'],
    'The last round-trip time of a tunnel that was measured; absent while it is down.'
  ),
  tunnel_bytes_total: counter(
    BOTH,
    ['site', 'direction'],
    'Bytes of packets that this gateway has sent into a tunnel and received from it.'
  ),
  tunnel_dropped_packets_total: counter(
    BOTH,
    ['site', 'reason'],
    'Packets that a tunnel did not send because too many waited (full) or for too long (late).'
  ),
  handshakes_total: counter(
    BOTH,
    ['result'],
    'Handshakes of tunnels by result; an edge counts its own attempts.'
  ),
  enrolments_total: counter(BOTH, ['result'], 'Redemptions of enrolment tokens by result.'),
  renewals_total: counter(BOTH, ['result'], 'Renewals of the certificates of edges by result.'),
  last_revocation_duration_seconds: gauge(
    CLOUD,
    [],
    'How long it took until no packet of the last revoked peer passed; absent before the first one.'
  ),
  revoked_sites: gauge(CLOUD, [], 'Sites of the desired state that are revoked.'),
  snapshot_revision: gauge(
    BOTH,
    ['site', 'state'],
    'The revision of the last snapshot that was sent to an edge, and that the edge has acknowledged.'
  ),
  snapshot_expiry_timestamp_seconds: gauge(
    EDGE,
    ['site'],
    'When the snapshot of the edge expires if there is no further contact with the cloud.'
  ),
  exposures: gauge(
    CLOUD,
    ['condition', 'status'],
    'Exposures by condition (Allocated, Programmed, Acknowledged) and status (True, False, Unknown).'
  ),
  pool_addresses: gauge(
    CLOUD,
    ['site', 'family', 'state'],
    'Addresses of the pools of a site by IP version and state.'
  ),
  certificate_expiry_timestamp_seconds: gauge(
    BOTH,
    ['subject'],
    'When a certificate expires: of the CA (ca), of the cloud (cloud), of a site (site/NAME).'
  ),
  pending_packets: gauge(
    CLOUD,
    ['site'],
    'Packets from new clients of a site that wait until their presence is stored.'
  ),
  admissions_total: counter(CLOUD, ['result'], 'Clients that asked for a presence, by result.'),
  dns_queries_total: counter(
    BOTH,
    ['rcode'],
    'DNS queries by the response code of the answer, and those without an answer (none).'
  ),
  dns_forward_duration_seconds: histogram(
    BOTH,
    [],
    'How long it took until an upstream server had answered a forwarded query, or none had.'
  ),
  store_commit_duration_seconds: histogram(
    BOTH,
    [],
    'How long it took until a commit of the store was durable, or had failed.'
  ),
  workers: gauge(CLOUD, ['state'], 'Workers that are up and that are down.'),
  workers_killed_total: counter(
    CLOUD,
    [],
    'Processes of workers that did not answer, and were killed and started again.'
  ),
  machines: gauge(
    CLOUD,
    ['state'],
    'Machines of the cloud, as this one sees them: live, draining (live, and takes no sites), gone.'
  ),
  machine_attached: gauge(
    CLOUD,
    [],
    'Whether this machine reaches the store of the cloud (1) or is detached (0).'
  ),
  controller: gauge(CLOUD, [], 'Whether this machine allocates addresses for all (1) or not (0).'),
  sites_held: gauge(CLOUD, [], 'Sites that this machine holds: their tunnels are here.'),
  event_loop_delay_seconds: histogram(
    BOTH,
    ['worker'],
    'How late the event loop of a process calls a timer, measured since the first scrape.'
  ),
});
