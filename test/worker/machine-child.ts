/**
 * One machine of several, without a gateway: its TUN, its routes and what it announces are those of `PoolTuns`, and it
 * answers every echo request that the TUN receives. Arguments: the options of the TUN and the routes of sites, as
 * JSON. Lines on standard input are commands, each answered by the same line when it is done:
 *
 * ```
 * hold SITE EPOCH
 * release SITE
 * ping SOURCE DESTINATION
 * close
 * ```
 *
 * `ping` sends an echo request out of the TUN, as from a site, and waits for the reply.
 */
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';
import { IpAddress } from '../../src/base/address.ts';
import { systemClock } from '../../src/base/clock.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import type { PacketDevice, TunDeviceOptions } from '../../src/device/index.ts';
import type { Logger } from '../../src/observe/index.ts';
import { probePacket } from '../../src/packet/index.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../../src/packet/virtio.ts';
import { PoolTuns } from '../../src/worker/pool-tuns.ts';

const [device, routes] = process.argv.slice(2).map((text) => JSON.parse(text)) as [
  TunDeviceOptions,
  Readonly<Record<string, string>>,
];
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const warn: Logger['warn'] = (_fields, message) => say(`warning: ${message}`);
const logger: Logger = { debug() {}, info() {}, warn, error: warn };
const tuns = new PoolTuns({
  device,
  workers: 1,
  holderOf: () => 0,
  isOneOfSeveral: true,
  logger,
  clock: systemClock,
});
await tuns.removeStaleRoutes();
const tun = await tuns.openDevice();
await tuns.open();
tuns.update(
  Object.entries(routes).map(([prefix, site]) => ({ prefix: IpPrefix.parse(prefix), site }))
);
const replies = new EventEmitter();
answerEchoes(tun);
say(`ready ${process.pid}`);

for await (const line of createInterface({ input: process.stdin })) {
  const [command, first, second] = line.split(' ');
  if (command === 'hold') await tuns.hold(first!, Number(second));
  else if (command === 'release') await tuns.release(first!);
  else if (command === 'ping') await ping(IpAddress.parse(first!), IpAddress.parse(second!));
  else {
    await tuns.stop();
    await tun.close();
    await tuns.close();
  }
  say(line);
  if (command === 'close') break;
}

async function ping(source: IpAddress, destination: IpAddress): Promise<void> {
  const ports = { sourcePort: 1, destinationPort: 0 };
  const packet = probePacket({ protocol: 'icmp', source, destination, ...ports });
  const frame = Buffer.concat([Buffer.alloc(VNET_HEADER_LENGTH), packet]);
  const send = (): void => void tun.write(frame, 0, frame.length);
  const again = setInterval(send, 200);
  send();
  await once(replies, 'reply');
  clearInterval(again);
}

/** Sends echo requests back as replies: with the addresses exchanged, only the type changes the checksum. */
function answerEchoes(from: PacketDevice): void {
  const buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  from.start(() => {
    for (let length = from.read(buffer, 0); length > 0; length = from.read(buffer, 0)) {
      const packet = buffer.subarray(VNET_HEADER_LENGTH, length);
      const isIpv4 = packet[0]! >> 4 === 4;
      const [source, width, start] = isIpv4 ? [12, 4, 20] : [8, 16, 40];
      const [protocol, request, reply] = isIpv4 ? [9, 8, 0] : [6, 128, 129];
      if (packet[protocol] !== (isIpv4 ? 1 : 58)) continue;
      if (packet[start] === reply) replies.emit('reply');
      if (packet[start] !== request) continue;
      const addresses = Buffer.from(packet.subarray(source, source + 2 * width));
      addresses.copy(packet, source, width);
      addresses.copy(packet, source + width, 0, width);
      packet[start] = reply;
      const sum = packet.readUInt16BE(start + 2) + ((request - reply) << 8);
      // One's complement: what is carried out is added again, what is borrowed is taken away again.
      packet.writeUInt16BE(sum < 0 ? sum + 0xffff : sum % 0xffff || sum, start + 2);
      from.write(buffer, 0, length);
    }
  });
}
