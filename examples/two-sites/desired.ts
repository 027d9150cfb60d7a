/**
 * The desired state of the scene: its sites, services and exposures.
 * @module
 */

import type { DesiredInput } from 'virtual-presence';

const realm = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'openstack.test' };

export const DESIRED: DesiredInput = {
  sites: [
    { name: 'cloud', ...realm },
    { name: 'site-a', ...realm },
    { name: 'site-b', ...realm },
  ],
  services: [
    // Two services on one host of the cloud: they share one presence at each site.
    { name: 'rabbitmq', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672', 'icmp'] },
    { name: 'neutron', site: 'cloud', address: '10.0.0.5', ports: ['tcp/9696-9697', 'udp/9696'] },
    { name: 'glance', site: 'cloud', address: '10.0.0.5', ports: ['tcp/9292', 'udp/9292'] },
    { name: 'keystone', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5000', 'udp/5000'] },
    // Both compute hosts have the same address as the host of the cloud.
    { name: 'console-a', site: 'site-a', address: '10.0.0.5', ports: ['tcp/6080', 'udp/6080'] },
    { name: 'console-b', site: 'site-b', address: '10.0.0.5', ports: ['tcp/6080', 'udp/6080'] },
    { name: 'migration-b', site: 'site-b', address: '10.0.0.5', ports: ['tcp/6081', 'udp/6081'] },
  ],
  exposures: [
    { service: 'rabbitmq', site: 'site-a' },
    { service: 'rabbitmq', site: 'site-b' },
    { service: 'neutron', site: 'site-a' },
    { service: 'neutron', site: 'site-b' },
    { service: 'glance', site: 'site-a' },
    { service: 'console-a', site: 'cloud' },
    { service: 'console-b', site: 'cloud' },
    { service: 'migration-b', site: 'site-a' },
  ],
};
