const tip=document.getElementById('tip'),off=new Set();
const say=v=>Math.abs(v)>=1e6?(v/1e6).toPrecision(3)+'M':Math.abs(v)>=1e3?(v/1e3).toPrecision(3)+'k':String(+v.toPrecision(4));
for(const b of document.querySelectorAll('[data-toggle]'))b.onclick=()=>{const id=b.dataset.toggle,hide=!off.has(id);
hide?off.add(id):off.delete(id);b.classList.toggle('off',hide);
for(const e of document.querySelectorAll(`[data-line="${id}"]`))e.style.display=hide?'none':''};
for(const f of document.querySelectorAll('.chart')){const d=JSON.parse(f.dataset.chart),s=f.querySelector('svg'),
c=f.querySelector('.cursor');s.onmousemove=e=>{const r=s.getBoundingClientRect(),[l,h,w]=d.box;
const x=((e.clientX-r.left)/r.width*w-l)/(h-l)*d.end;tip.textContent='';let at=null;
for(const g of d.lines){if(off.has(String(g.id)))continue;let i=0;
g.x.forEach((v,k)=>{if(Math.abs(v-x)<Math.abs(g.x[i]-x))i=k});if(g.mean[i]===null)continue;at=g.x[i];
const row=document.createElement('div'),sw=document.createElement('i');sw.className='swatch';
sw.style.background=`var(--c${g.colour})`;row.append(sw,`${g.label}: ${say(g.mean[i])}`+
(g.band?` [${say(g.band[0][i])}, ${say(g.band[1][i])}]`:g.error[i]===null?'':` \u00b1 ${say(g.error[i])}`)+` (n=${g.count[i]})`);tip.append(row)}
if(at===null){tip.hidden=true;return}const head=document.createElement('b');head.textContent=say(at);tip.prepend(head);
const px=l+at/d.end*(h-l);c.setAttribute('x1',px);c.setAttribute('x2',px);tip.hidden=false;
tip.style.left=Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8)+'px';
tip.style.top=Math.min(e.clientY+14,innerHeight-tip.offsetHeight-8)+'px'};
s.onmouseleave=()=>{tip.hidden=true;c.setAttribute('x1',-9);c.setAttribute('x2',-9)}}
