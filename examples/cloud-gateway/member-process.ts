/**
 * A member in a process of its own: `LocalMember` behind a wire to the controller. It ends with it.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { CloseCode, LinuxTun, type TunnelCredentials } from 'virtual-presence';
import { log } from '../program/run.ts';
import { type Access, accessBy } from './access.ts';
import { typeOf } from './child-member.ts';
import { LocalMember, type SiteTunnel } from './member.ts';
import type { ControllerCalls, MemberCalls } from './member-calls.ts';
import { Wire } from './wire.ts';

export function runMember(): void {
  // Told to the whole group by a terminal or a service manager; the controller tells us its own way.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  let member: LocalMember | undefined;
  let access: Access | undefined;
  let credentials: TunnelCredentials | undefined;
  let device: string | undefined;
  const tunnels = new Map<number, SiteTunnel>();
  let lastTunnel = 0;
  let isClosing = false;

  const onTunnel = (tunnel: SiteTunnel): void => {
    const number = ++lastTunnel;
    tunnels.set(number, tunnel);
    const { site, remoteAddress, cipher, keyExchange } = tunnel;
    const certificate = tunnel.certificate.raw;
    controller.tell('up', number, { site, remoteAddress, cipher, keyExchange, certificate });
    tunnel.onRenewed = () => controller.tell('renewed', number, tunnel.certificate.raw);
    tunnel.on('control', (message) => {
      try {
        controller.tell('control', number, message);
      } catch {
        // An edge can send what is nested so deeply that it cannot be told.
        tunnel.close(CloseCode.ProtocolError, 'the message cannot be taken');
      }
    });
    tunnel.onDown = (code, reason) => {
      tunnels.delete(number);
      controller.tell('down', number, code, reason);
    };
  };

  const calls: MemberCalls = {
    async open({ number, tunnel, limits, plan, ...start }) {
      access = accessBy(start.access);
      credentials = start.credentials;
      device = start.device.name;
      member = new LocalMember(
        {
          number,
          tunnel,
          limits,
          credentials: () => credentials!,
          access: () => access!,
          // Kept when this process ends, so that its routes are.
          openDevice: () => LinuxTun.open({ ...start.device, persist: true }),
        },
        {
          admit: (...client) => controller.ask('admit', ...client),
          onTunnel,
          onRefused: (refusal) => controller.tell('refusedPeer', refusal),
          log: (line) => controller.tell('log', line),
        }
      );
      member.load(plan);
      const addresses = await member.open();
      member.start();
      return addresses;
    },
    load: (plan) => member?.load(plan),
    bind: (presence) => member?.bind(presence),
    access(table) {
      access = accessBy(table);
    },
    control(number, message) {
      const tunnel = tunnels.get(number);
      try {
        if (tunnel?.sendControl(message) === false) {
          controller.tell('refused', number, typeOf(message));
        }
      } catch (error) {
        controller.tell('log', `${tunnel!.site}: ${(error as Error).message}`);
      }
    },
    closeTunnel: (tunnel, code, reason) => tunnels.get(tunnel)?.close(code, reason),
    credentials(renewed) {
      credentials = renewed;
      member?.setCredentials(renewed);
    },
    cut: (...args) => member!.cut(...args),
    cutRevoked: (...args) => member!.cutRevoked(...args),
    handOver: (site, code, reason, endpoint) => member!.handOver(site, { code, reason, endpoint }),
    settled: () => {},
    gone: () => member!.gone(),
    presenceUses: () => member!.presenceUses(),
    status: (sites) => member!.status(sites),
    paths: () => member!.paths(),
    explain: (packet, realm) => member!.explain(packet, realm),
    async close() {
      isClosing = true;
      await member?.close();
    },
  };
  const controller: Wire<ControllerCalls> = new Wire<ControllerCalls>(process, calls);
  process.on('disconnect', () => {
    // Told to, or the controller has ended without a word: nobody needs the interface any more.
    if (device !== undefined) removeInterface(device);
    process.exit(isClosing ? 0 : 1);
  });
  process.on('uncaughtException', (error) => {
    log(`process ended by a fault: ${error.stack}`);
    process.exit(1);
  });
}

function removeInterface(name: string): void {
  if (!existsSync(`/proc/sys/net/ipv4/conf/${name}`)) return;
  try {
    execFileSync('ip', ['link', 'delete', name], { stdio: 'pipe' });
  } catch {
    log(`the interface ${name} is left behind`);
  }
}
