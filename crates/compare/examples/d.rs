use std::sync::Arc;
fn main(){ let a:Vec<String>=std::env::args().collect();
 let rd=|p:&str| invivo_image::Image::parse(Arc::from(std::fs::read(p).unwrap()),None).unwrap();
 let t=std::time::Instant::now();
 let b=rd(&a[1]);let f=rd(&a[2]); println!("parse {:?}",t.elapsed());
 let c=invivo_compare::Comparison::new(&b,&f); println!("all {:?}",t.elapsed());
 for h in &c.hot { println!("HOT {}",h.name); for r in h.reasons.iter().take(3){println!("   {:?} {}",r.kind,r.text);} }
 for x in &c.added { println!("ADDED {}", f.entity(*x).name()); }
 for x in &c.removed { println!("REMOVED {}", b.entity(*x).name()); }
 for x in &c.findings { println!("{:?} {} {}: {}", x.severity,x.rule.id(),x.subject,x.text); }
 println!("functions {} {} undecoded {}", b.entities.len(), f.entities.len(), c.base_usage.undecoded.len());
 println!("hot {}",c.hot.len());
}
