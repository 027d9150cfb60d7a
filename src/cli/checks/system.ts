/**
 * `config check --system`: whether this machine can run a gateway with its configuration. Nothing is changed; ports are
 * taken for a moment, and at an edge the cloud gets TLS handshakes that end.
 * @module
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HostPort } from '../../base/host-port.ts';
import type { IpPrefix } from '../../base/prefix.ts';
import { isPacketDevice } from '../../device/index.ts';
import type { ResolvedCloudOptions } from '../../gateway/cloud-options.ts';
import type { ResolvedEdgeOptions } from '../../gateway/edge-options.ts';
import { ENROLMENT_ALPN } from '../../pki/enrolment-message.ts';
import { parseToken } from '../../pki/token.ts';
import { ALPN_PROTOCOL } from '../../tunnel/messages.ts';
import { type CheckedCloud, type CheckedEdge, ownSite } from '../checked-file.ts';
import { clockFindings } from './clock-checks.ts';
import { deviceFindings } from './device-checks.ts';
import { type EndpointCheck, endpointFinding } from './endpoint-checks.ts';
import {
  descriptorFindings,
  socketPathFinding,
  stateFindings,
  userOfState,
} from './file-checks.ts';
import { type Finding, fail, ok, warn } from './finding.ts';
import { portFindings, type WantedPort } from './port-checks.ts';

export async function systemFindings(checked: CheckedCloud | CheckedEdge): Promise<Finding[]> {
  const { options, file, keys } = checked;
  const stateDirectory = file.resolve(keys.stateDirectory);
  const user = await userOfState(stateDirectory);
  return [
    ...stateFindings(stateDirectory),
    ...(await deviceOf(checked)),
    ...socketPaths(checked),
    ...(user === undefined ? await portFindings(portsOf(checked)) : [runs(user)]),
    ...descriptorFindings(descriptorsOf(checked)),
    ...(await clockFindings(certificatesOf(checked, stateDirectory))),
    ...(checked.side === 'edge' ? await wayToCloud(checked, options as ResolvedEdgeOptions) : []),
  ];
}

function runs(user: string): Finding {
  return ok('port', `the gateway runs now, as process ${user}: its ports are not checked`);
}

async function deviceOf(checked: CheckedCloud | CheckedEdge): Promise<Finding[]> {
  const { device } = checked.options;
  if (isPacketDevice(device) || device.type !== 'tun') return [];
  const site = checked.side === 'cloud' ? ownSite(checked) : undefined;
  const routed = device.routes as readonly IpPrefix[] | undefined;
  return deviceFindings({
    tun: device,
    pools: routed ?? site?.pools ?? [],
    sources: site?.sources ?? [],
  });
}

function socketPaths(checked: CheckedCloud | CheckedEdge): Finding[] {
  const { keys, file, options } = checked;
  const { device } = options;
  const { forward = [], proxy } = keys.sockets ?? {};
  const paths: (readonly [key: string, path: string | undefined])[] = [
    ['adminSocket', keys.adminSocket],
    ['device.path', 'path' in device ? device.path : undefined],
    ...forward.map(({ listen }, i) => [`sockets.forward[${i}].listen`, pathOf(listen)] as const),
    ['sockets.proxy.listen', pathOf(proxy?.listen)],
  ];
  return paths.flatMap(([key, path]) =>
    path === undefined ? [] : [socketPathFinding(key, file.resolve(path))]
  );
}

function pathOf(listen: unknown): string | undefined {
  const { path } = (listen ?? {}) as { readonly path?: string };
  return path;
}

/** The ports that the gateway listens on, in the order of its start. */
function portsOf(checked: CheckedCloud | CheckedEdge): WantedPort[] {
  const { options, keys } = checked;
  const { dns, device } = options;
  const { forward = [], proxy } = keys.sockets ?? {};
  const listens: [key: string, listen: unknown][] = [
    ...forward.map(({ listen }, i): [string, unknown] => [`sockets.forward[${i}].listen`, listen]),
    ['sockets.proxy.listen', proxy?.listen],
    ['metrics.listen', options.metrics?.listen],
  ];
  return [
    ...(checked.side === 'cloud' ? cloudPorts(checked.options) : []),
    ...(dns === undefined
      ? []
      : (['udp', 'tcp'] as const).map((protocol) => ({
          key: 'dns.listen',
          protocol,
          ...dns.listen,
        }))),
    ...('local' in device
      ? [{ key: 'device.local', protocol: 'udp' as const, ...device.local }]
      : []),
    ...listens.flatMap(([key, listen]) =>
      typeof listen === 'object' && listen !== null && 'port' in listen
        ? [{ key, protocol: 'tcp' as const, ...(listen as HostPort) }]
        : []
    ),
  ];
}

function cloudPorts({ tunnel, enrolment, workers }: ResolvedCloudOptions): WantedPort[] {
  const { host, port } = tunnel;
  const tunnels = Array.from({ length: workers }, (_, i) => (port === 0 ? 0 : port + i));
  const ports = tunnels.map(
    (each): WantedPort => ({ key: 'tunnel', protocol: 'tcp', host, port: each })
  );
  const { listen } = enrolment;
  if (listen === 'shared') return ports;
  return [...ports, { key: 'enrolment.listen', protocol: 'tcp', ...listen }];
}

/** A tunnel has up to eight connections; a stack of sockets has one of the machine for each of its own. */
function descriptorsOf(checked: CheckedCloud | CheckedEdge): number {
  const { device } = checked.options;
  const sites = checked.side === 'cloud' ? checked.desired.sites.length - 1 : 1;
  const stack = 'limits' in device ? device.limits?.connections : undefined;
  return OWN_DESCRIPTORS + CONNECTIONS_OF_TUNNEL * sites + (stack ?? 0);
}

function certificatesOf(checked: CheckedCloud | CheckedEdge, directory: string) {
  const ca = { what: "the cloud's CA", path: join(directory, 'ca.pem') };
  if (checked.side === 'cloud') {
    return [{ ...ca, remedy: 'replace the CA by a rollover, and give the sites new tokens' }];
  }
  const remedy = `put a new token of the cloud into ${checked.file.resolve(checked.keys.tokenFile)}`;
  return [
    { ...ca, remedy },
    { what: 'the certificate of the site', path: join(directory, 'certificate.pem'), remedy },
  ];
}

async function wayToCloud(
  { file, keys }: CheckedEdge,
  { proxy, cloud }: ResolvedEdgeOptions
): Promise<Finding[]> {
  const directory = file.resolve(keys.stateDirectory);
  const tokenPath = file.resolve(keys.tokenFile);
  const ca = textOf(join(directory, 'ca.pem'));
  if (ca !== undefined) {
    const stored = tunnelsOf(textOf(join(directory, 'cloud.json')));
    const checks = (cloud ?? stored).map(
      (endpoint): EndpointCheck => ({
        ...{ what: 'tunnel', endpoint, alpn: ALPN_PROTOCOL },
        ...{ anchor: { ca }, proxy },
      })
    );
    if (checks.length > 0) return Promise.all(checks.map(endpointFinding));
    return [
      fail('endpoint', 'no endpoint of the cloud is known', 'name its tunnel endpoints as cloud'),
    ];
  }
  const text = textOf(tokenPath);
  if (text === undefined) {
    return [
      fail(
        'token',
        `the site is not enrolled, and there is no token in ${tokenPath}`,
        `make a token for the site at the cloud, and put it into ${tokenPath}`
      ),
    ];
  }
  let token: ReturnType<typeof parseToken>;
  try {
    token = parseToken(text);
  } catch (error) {
    const { message } = error as Error;
    return [fail('token', `${tokenPath}: ${message}`, 'put the whole token there, as one line')];
  }
  const anchor = { caSpkiHash: token.caSpkiHash };
  const enrolment = token.endpoints.map((endpoint): EndpointCheck => {
    const { hostname, port } = new URL(endpoint);
    const host = hostname.replace(/^\[|\]$/g, '');
    return {
      ...{ what: 'enrolment', endpoint: { host, port: Number(port || HTTPS_PORT) } },
      ...{ alpn: ENROLMENT_ALPN, anchor, proxy },
    };
  });
  const findings = await Promise.all(enrolment.map(endpointFinding));
  return [warnOfToken(token.site), ...findings];
}

function warnOfToken(site: string): Finding {
  return warn(
    'token',
    `the site is not enrolled yet: the gateway enrols as "${site}" when it starts`,
    'start the gateway while the token holds'
  );
}

function textOf(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

function tunnelsOf(json: string | undefined): readonly HostPort[] {
  if (json === undefined) return [];
  try {
    return (JSON.parse(json) as { readonly tunnels: readonly HostPort[] }).tunnels;
  } catch {
    return [];
  }
}

const HTTPS_PORT = 443;
const CONNECTIONS_OF_TUNNEL = 8;
/** For files, workers, listeners, and connections that begin. */
const OWN_DESCRIPTORS = 256;
