import { describe, expect, test } from 'vitest';
import { HostNames } from '../../src/base/host-names.ts';

describe('HostNames', () => {
  const names = new HostNames('A.test', [
    { name: 'nova.a.test', aliases: ['compute.a.test', 'mq.a.test'] },
    { name: 'Apps.a.test', wildcard: true, aliases: ['x.y.apps.a.test'] },
    { name: 'web.apps.a.test' },
    { name: 'mq.a.test' },
    { name: 'glance.a.test', aliases: ['compute.a.test'] },
    { name: 'plain', wildcard: false },
  ]);

  test.each([
    ['a full name', 'mq.a.test', 'mq.a.test'],
    ['a name within the zone', 'mq', 'mq.a.test'],
    ['another case and a trailing dot', 'MQ.a.TEST.', 'mq.a.test'],
    ['the earlier of two hosts with an alias', 'compute', 'glance.a.test'],
    ['a host before an alias', 'mq.a.test.', 'mq.a.test'],
    ['an alias below a wildcard', 'x.y.apps', 'apps.a.test'],
    ['a name that a wildcard covers', 'Shop.apps.a.test', 'apps.a.test'],
    ['a name two labels below a wildcard', 'a.b.apps.a.test.', 'apps.a.test'],
    ['a name within the zone that only a wildcard covers', 'shop.apps', undefined],
    ['a name below one that exists beside the wildcard', 'x.web.apps.a.test', undefined],
    ['a name in between', 'y.apps.a.test', undefined],
    ['a name below one in between', 'z.y.apps.a.test', undefined],
    ['a missing name', 'none.a.test', undefined],
    ['a foreign name', 'x.plain', undefined],
    ['nothing', '', undefined],
  ])('finds %s', (_, text, expected) => {
    expect(names.find(text)).toBe(expected);
  });

  test('covers no foreign name by a wildcard at the apex', () => {
    const all = new HostNames('a.test', [{ name: 'a.test', wildcard: true }]);
    expect(all.find('x.y.a.test')).toBe('a.test');
    expect(all.find('example.org')).toBeUndefined();
  });
});
