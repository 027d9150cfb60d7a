/**
 * Pairs of layer-4 proxies with mutual TLS 1.3 between them: a connection of the client's is one of
 * the edge's and one of the cloud's.
 * @module
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../../../test/support/gateway-process.ts';
import type { Host, Program } from '../../../test/support/network.ts';
import { type CertificateFiles, makeCertificates } from '../certificates.ts';
import {
  type Contender,
  LIFETIME_SECONDS,
  missingPrograms,
  type ServiceAccess,
  TCP_PORTS,
} from '../contender.ts';
import { CLOUD_WAN, type Scene } from '../scene.ts';
import { PRESENCE } from './kernel.ts';

export const nginxMtls: Contender = {
  name: 'nginxMtls',
  about: 'nginx stream at both gateways, mutual TLS 1.3',
  plan: 'same',
  hasUdp: false,
  missing: () => {
    const isThere = existsSync(STREAM_MODULE);
    return (
      missingPrograms({ nginx: 'nginx', openssl: 'openssl' }) ??
      (isThere ? undefined : 'nginx has no stream module (Debian package libnginx-mod-stream)')
    );
  },
  async start(scene) {
    const { edge, cloud } = makeCertificates(scene.directory);
    const edgeServers = TCP_PORTS.map(
      (port) => `server {
        listen ${PRESENCE}:${port};
        proxy_pass ${CLOUD_WAN}:${port};
        proxy_ssl on;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_certificate ${edge.certificate};
        proxy_ssl_certificate_key ${edge.key};
        proxy_ssl_trusted_certificate ${edge.ca};
        proxy_ssl_verify on;
        proxy_ssl_name ${cloud.name};
      }`
    );
    const cloudServers = TCP_PORTS.map(
      (port) => `server {
        listen ${CLOUD_WAN}:${port} ssl;
        proxy_pass ${scene.serviceLan.host}:${port};
        ssl_protocols TLSv1.3;
        ssl_certificate ${cloud.certificate};
        ssl_certificate_key ${cloud.key};
        ssl_client_certificate ${cloud.ca};
        ssl_verify_client on;
      }`
    );
    const nginx = (host: Host, servers: readonly string[]) => {
      const file = (what: string) => join(scene.directory, `nginx-${host.name}.${what}`);
      writeFileSync(
        file('conf'),
        `load_module ${STREAM_MODULE};
        user root;
        daemon off;
        worker_processes auto;
        pid ${file('pid')};
        error_log stderr;
        events { worker_connections 1024; }
        stream {
          proxy_buffer_size 64k;
          ${servers.join('\n')}
        }`
      );
      return host.start(['nginx', '-c', file('conf')], LIFETIME_SECONDS);
    };
    return startPair(scene, nginx(scene.cloud, cloudServers), () => nginx(scene.edge, edgeServers));
  },
};

export const haproxyMtls: Contender = {
  name: 'haproxyMtls',
  about: 'HAProxy in TCP mode at both gateways, mutual TLS 1.3',
  plan: 'same',
  hasUdp: false,
  missing: () => missingPrograms({ haproxy: 'haproxy', openssl: 'openssl' }),
  async start(scene) {
    const { edge, cloud } = makeCertificates(scene.directory);
    const tls = ({ both, ca }: CertificateFiles) =>
      `ssl crt ${both} ca-file ${ca} verify required ssl-min-ver TLSv1.3`;
    const edgeProxies = TCP_PORTS.map(
      (port) => `listen port${port}
        bind ${PRESENCE}:${port}
        server cloud ${CLOUD_WAN}:${port} ${tls(edge)} verifyhost ${cloud.name}`
    );
    const cloudProxies = TCP_PORTS.map(
      (port) => `listen port${port}
        bind ${CLOUD_WAN}:${port} ${tls(cloud)}
        server service ${scene.serviceLan.host}:${port}`
    );
    const haproxy = (host: Host, proxies: readonly string[]) => {
      const path = join(scene.directory, `haproxy-${host.name}.cfg`);
      writeFileSync(
        path,
        `global
        maxconn 1024
        tune.bufsize 65536
      defaults
        mode tcp
        timeout connect 5s
        timeout client 60s
        timeout server 60s
      ${proxies.join('\n')}\n`
      );
      return host.start(['haproxy', '-db', '-f', path], LIFETIME_SECONDS);
    };
    return startPair(scene, haproxy(scene.cloud, cloudProxies), () =>
      haproxy(scene.edge, edgeProxies)
    );
  },
};

async function startPair(
  { edge, cloud }: Scene,
  cloudProgram: Program,
  startEdge: () => Program
): Promise<ServiceAccess> {
  await isListening(cloud, cloudProgram);
  await edge.sh(`ip address add ${PRESENCE}/24 dev lan0`);
  const edgeProgram = startEdge();
  await isListening(edge, edgeProgram);
  return { address: PRESENCE, programs: [cloudProgram, edgeProgram] };
}

/** Waits until a proxy has all its ports. */
async function isListening(host: Host, program: Program): Promise<void> {
  await eventually(`${host.name}: the proxy listens`, async () => {
    if (program.child.exitCode !== null) throw new Error(`the proxy has ended: ${program.text}`);
    const sockets = await host.get(['ss', '-Htln']);
    return TCP_PORTS.every((port) => sockets.includes(`:${port} `)) || undefined;
  });
}

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';
