const book=JSON.parse(document.getElementById('passport').textContent),box=document.getElementById('passport-of');
const make=(tag,text,...children)=>{const e=document.createElement(tag);if(text!==null)e.textContent=text;e.append(...children);return e};
const word=v=>v===undefined||v===null?'not recorded':typeof v==='string'?v:JSON.stringify(v);
const flat=(v,at='')=>v&&typeof v==='object'&&!Array.isArray(v)?Object.entries(v).flatMap(([k,o])=>flat(o,at?`${at}.${k}`:k)):[[at,v]];
const table=pairs=>{const body=make('tbody',null);for(const [k,v] of pairs){const h=make('th',k);h.scope='row';
body.append(make('tr',null,h,make('td',word(v))))}return make('table',null,body)};
const list=v=>Array.isArray(v)&&v.length&&v.every(x=>typeof x==='number'||x===null);
const run=name=>{const s=book.samples[name],r=s.row,d=make('details',null,make('summary',`${r.arm} on ${r.task}, seed ${r.seed}`));
d.addEventListener('toggle',()=>{if(d.childElementCount>1)return;const from=book.sources[s.source];
d.append(table([['row',from.path+(s.line?`, line ${s.line}`:'')],['code commit',r.commit],
['command',Array.isArray(r.command)?r.command.join(' '):r.command],['configuration',r.config],['steps',r.step],['ended',r.ended],
['run folder',r.folder],['measured by',r.measure],...flat(r.settings,'settings'),...flat(r.protocol,'protocol'),
...flat(r.hardware,'hardware')]));
for(const [k,v] of Object.entries(r))if(list(v)){const p=make('div',v.map(x=>x===null?'?':+x.toPrecision(6)).join(', '));
p.className='episodes';p.tabIndex=0;p.setAttribute('role','region');p.setAttribute('aria-label',`episodes of ${k}`);
d.append(make('p',null,make('b',`${k}, ${v.length} episode${v.length===1?'':'s'}`)),p)}});return d};
const open=key=>{const n=book.numbers[key],inner=box.firstElementChild,shut=make('button','Close'),h=make('h2',n.text);
shut.className='close';shut.onclick=()=>box.close();h.id='passport-title';
const values=Object.entries(n.values).filter(([,v])=>typeof v==='number');
inner.replaceChildren(shut,h,make('p',n.how));if(values.length)inner.append(table(values));
inner.append(make('h3',`${n.of.length} run${n.of.length===1?'':'s'}`),...n.of.map(run));
if(n.of.length===1)inner.querySelector('details').open=true;box.showModal();box.scrollTop=0};
for(const b of document.querySelectorAll('button.n'))b.onclick=()=>open(b.dataset.n);
box.onclick=e=>{if(e.target===box)box.close()};
