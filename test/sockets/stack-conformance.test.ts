/** The tests of every packet device, for the device of a stack whose UDP is a queue. */
import { IpAddress } from '../../src/base/address.ts';
import { systemClock } from '../../src/base/clock.ts';
import { SiteView } from '../../src/sockets/site/site-view.ts';
import { StackDevice } from '../../src/sockets/stack-device.ts';
import { describeDevice } from '../device/conformance.ts';
import { FakeEndpoint } from './fake-endpoint.ts';

function stackWith(name: string, address: string): { device: StackDevice; udp: FakeEndpoint } {
  const site = { sources: [], pools: ['10.9.0.0/16'], zone: 'test', hosts: [] };
  const view = new SiteView(site, [IpAddress.parse(address)], undefined);
  const udp = new FakeEndpoint();
  const device = new StackDevice({
    name,
    mtu: 65_515,
    offload: true,
    clock: systemClock,
    endpoints: { tcp: new FakeEndpoint(), udp, icmp: new FakeEndpoint() },
    view: () => view,
    hasBackend: () => false,
    onUnknownProtocol: () => {},
  });
  return { device, udp };
}

describeDevice(
  'the device of a stack',
  async () => {
    // What is written to a stack has come for it, so the first one has the address to which the packets go.
    const first = stackWith('first', '10.9.2.5');
    const second = stackWith('second', '10.9.1.5');
    first.udp.onFrame = (frame) => second.udp.send(frame);
    second.udp.onFrame = (frame) => first.udp.send(frame);
    return { first: first.device, second: second.device };
  },
  { offload: true }
);
