/**
 * Two machines of one cloud whose clocks are a minute apart: enrolment at one, admission and takeover at the other, and a
 * revocation that both confirm.
 */
import { afterEach, expect, test } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { desired, Gateways, Hosts } from './scene.ts';

const BUS = '10.0.0.129';
const gateways = new Gateways();
afterEach(() => gateways.close());

/** The clock of the system, with another time of day. */
function clockAhead(aheadMs: number): Clock {
  return { ...systemClock, wallMs: () => systemClock.wallMs() + aheadMs };
}

test.each([60_000, -60_000])(
  'a machine whose clock is %i ms ahead of the other’s',
  async (aheadMs) => {
    const shared = new MemoryStore();
    const machine = async (name: string, clock: Clock) => {
      const hosts = new Hosts();
      hosts.serve(({ source }) => `${name} ${source}`);
      const options = { device: hosts.device, clock, ttlMs: 1000 };
      return (await gateways.machine(shared, name, options)).cloud;
    };
    const one = await machine('one', clockAhead(aheadMs));
    const two = await machine('two', systemClock);
    await two.apply(desired('site-a', 'site-b'));
    const edgeOf = async (site: string, at: typeof one) => {
      const hosts = new Hosts();
      // The token is good for less than the clocks differ.
      const token = await at.createToken({ site, lifetimeMs: 50_000 });
      const edge = await gateways.edge({ device: hosts.device, token });
      await edge.ready();
      return { edge, hosts };
    };
    const a = await edgeOf('site-a', one);
    const b = await edgeOf('site-b', two);
    const [, ofA] = (await a.hosts.request(BUS, 'from a')).split(' ');
    expect(await b.hosts.request(BUS, 'from b')).toMatch(/^two /);
    expect(two.whois('cloud', ofA!)).toMatchObject({ site: 'site-a' });

    const receipt = await one.revoke({ site: 'site-b' });
    expect(receipt).toMatchObject({ confirmed: ['one', 'two'], unconfirmed: [] });
    expect((await two.status('site-b')).sites[0]).toMatchObject({ edge: undefined });

    // The certificate that one has issued is good at the other, and the client keeps its address.
    await one.close();
    let answer: string;
    do answer = await a.hosts.request(BUS, 'after');
    while (answer.startsWith('one'));
    expect(answer).toBe(`two ${ofA}`);
  }
);
