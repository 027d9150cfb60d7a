import { createServer } from './src/sockets/server.ts';
import { connect } from './src/sockets/socket.ts';
import { StackNetwork } from './test/sockets/stack-network.ts';
import { once } from 'node:events';
const network = new StackNetwork();
const client = network.stack('10.1.0.1'); const far = network.stack('10.2.0.1');
const t0=performance.now(); const log=(...a: unknown[])=>console.log((performance.now()-t0).toFixed(1), ...a);
setTimeout(()=>{ log('STUCK', client.allCounters, far.allCounters, far.tcp.sizes, client.tcp.sizes, far.tcp.deadline, client.tcp.deadline, performance.now()); process.exit()},1500);
for (const round of [0,1]) {
  const server = createServer(far, {});
  server.listen(0); await once(server,'listening');
  const s = connect(client, server.address()!.port, '10.2.0.1');
  const [[a]] = await Promise.all([once(server,'connection'), once(s,'connect')]) as any;
  if (round===0) {
   s.write('grusse'); s.end(); a.end('ok'); a.resume(); s.resume();
   await Promise.all([once(a,'close'), once(s,'close')]); log('closed both');
   server.close(); await once(server,'close');
  } else {
   a.on('data',(d:any)=>log('data',String(d)));
   for (const t of ['one','two','three']) { const d=once(a,'data'); s.write(t); await d; }
   log('done'); process.exit();
  }
}
