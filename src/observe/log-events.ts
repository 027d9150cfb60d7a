/**
 * The events of log lines: what a line is about, as a name for programs that does not change when its sentence does. Each
 * is logged in one place. `docs/monitoring.md` has the same list.
 * @module
 */

/** What each event means, in one sentence. */
export const LOG_EVENTS = {
  cloud_open: 'The cloud gateway serves.',
  revoked: 'A site, a certificate or a key was revoked.',
  ca_rollover: 'A step of a CA rollover was taken.',
  ca_expiring: 'The CA expires soon, or has expired.',
  ca_key_encrypted: 'A private key was encrypted with the present passphrase.',
  ca_not_followed: 'The CAs that another machine has stored cannot be put into force here.',
  root_key_stored: 'The key of the root CA was made, and should be moved away.',
  edge_up: 'The tunnel of a site is up (at the cloud).',
  edge_down: 'The tunnel of a site is down (at the cloud).',
  edge_renewed: 'An edge presents a renewed certificate.',
  edge_refused:
    'A connection of a known site was refused; at most once in 10 s for each site and code.',
  edge_protocol_error: 'An edge has broken the protocol, and its tunnel is closed.',
  edge_message_failed: 'A message to an edge could not be sent, or its tunnel not be closed.',
  control_server_failed: 'A snapshot could not be sent, or a certificate not be renewed.',
  site_end_failed: 'The tunnels of a site that is gone could not be ended.',
  pool_warning: 'Addresses of a pool get scarce, or quotas exceed it.',
  machine_state:
    'This machine, one of several, does not reach the store any more, or does again, or waits in a restored one.',
  machine_failed:
    'This machine, one of several, could not tell the others something; this is tried again.',
  machine_draining:
    'A drain of this machine, one of several, begins, is done, or is ended, so that it takes sites again.',
  controller_elected: 'Another machine, or this one, allocates addresses for all from now on.',
  site_claim_failed: 'A site could not be claimed, taken or given up here.',
  registry_failed: 'An entry of the desired state in the store is not usable.',
  audit_failed: 'A line of the audit log could not be written.',
  presence_failed: 'A presence could not be leased or stored.',
  names_failed: 'The names of the cloud could not be compiled.',
  pool_routes_failed: 'The routes of the cloud pools could not be set; this is tried again.',
  site_sockets_failed: 'The sockets of the cloud could not follow a change.',
  revocation_failed: 'The tunnels of a revoked site could not be ended.',
  enrolment_server_failed: 'The enrolment server has a fault.',
  prune_failed: 'Records of expired certificates could not be removed.',
  cloud_device_problem: 'The device of the cloud works with limits.',
  tun_problem: 'A TUN of the cloud works with limits, or could not be set up.',
  kernel_routes_failed: 'Routes of presences could not be set; this is tried again.',
  worker_killed:
    'A worker did not answer, and its process was killed, so that none of its packets passes.',
  worker_ended: 'The process of a worker has ended, and is started again.',
  worker_back: 'The process of a worker is up again.',
  worker_start_failed: 'The process of a worker could not be started; this is tried again.',
  worker_setup_failed: 'A worker was started again, and could not be set up.',
  authorize_failed:
    'The function `authorize` of the host program has failed, and the site was refused.',
  first_enrolment_failed: 'An edge without a usable certificate could not enrol.',
  enrolled_again: 'An edge has replaced its certificate with a token.',
  enrolment_failed: 'An edge could not replace its certificate with a token.',
  certificate_renewed: 'An edge has renewed its certificate.',
  certificate_not_renewed: 'A certificate could not be renewed; this is tried again.',
  certificate_expired: 'A certificate has expired.',
  trust_refused: 'The trust bundle of the cloud was not acceptable.',
  tunnel_up: 'The tunnel is up (at the edge).',
  tunnel_down: 'The tunnel is down (at the edge).',
  tunnel_connections: 'A connection was added to the tunnel, or taken from it.',
  tunnel_refused: 'The cloud refuses the tunnel.',
  tunnel_retry: 'The edge waits until it dials again.',
  snapshot_applied: 'A snapshot is in force at the edge.',
  snapshot_expired: 'The snapshot of the edge has expired.',
  control_failed: 'A message of the cloud could not be taken, or a snapshot not be stored.',
  edge_device_problem: 'The device of the edge works with limits.',
  edge_sockets_failed: 'The sockets of the edge could not follow a snapshot.',
  edge_routes_problem: 'A route of the pools of the edge works with limits.',
  edge_routes_failed: 'The routes of the pools of the edge could not be set.',
  pool_conflict: 'A pool is in conflict with an address, a route or a resolver of the machine.',
  pool_conflicts_hidden: 'There are more such conflicts than are shown.',
  pool_check_failed: 'The pools could not be compared with a part of the machine.',
  admin_failed: 'A request of the admin interface met a fault of the gateway.',
  cloud_ready: 'The command `cloud` has started its gateway; `listening` has the addresses.',
  cloud_without_sites: 'The cloud has no site yet, and the line says what to do first.',
  edge_ready: 'The command `edge` has started its gateway; `listening` has the addresses.',
  gateway_stopping: 'A signal ends the gateway.',
  etcd_files_failed:
    'The renewed files of the certificate for etcd cannot be used; those before are.',
  reloaded: 'The configuration was read again.',
  reload_failed: 'The configuration could not be read again; the gateway goes on as before.',
  restart_needed: 'Keys of the configuration have changed that take effect after a restart.',
  notify_failed: 'The service manager could not be told of the state of the gateway.',
  sockets_published: 'The services that are exposed to the site have addresses on this host.',
  hosts_file_failed: 'The file with the names of published services could not be written.',
  sockets_forwarded: 'A local port leads to a service.',
  forward_failed: 'A local port for a service could not be opened.',
  forward_waits: 'A local port waits until its service is exposed.',
} as const;

/** The name of an event. */
export type LogEvent = keyof typeof LOG_EVENTS;

/** Returns the fields of an error: itself and its code, if it has one. */
export function errorFields(error: unknown): { readonly err: unknown; readonly code?: string } {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === 'string' ? { err: error, code } : { err: error };
}
